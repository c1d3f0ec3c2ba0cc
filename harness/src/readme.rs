//! The generated parts of README.md: what stands between these markers is written by `harness regenerate`;
//! with `--check` it says what is stale.
//!
//! ```text
//! <!-- generated: catalogue -->                        the experiments, from their declarations
//! <!-- generated: guide MACHINE DEVICE MODEL -->       what to take, from all committed results of a machine
//! <!-- generated: table RESULTS DEVICE MODEL -->       a table, from a committed folder of results
//! <!-- generated: smallest-caps RESULTS DEVICE MODEL -->  what each technique survives in, likewise
//! <!-- generated: overhead CSV -->                     what measuring costs, likewise
//! <!-- end generated -->
//! ```

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, bail};
use checkpoint::Dtype;
use gpt2::Size;
use lab::DeviceSpec;

use crate::advice::{self, Situation, Whose};
use crate::commands::overhead;
use crate::results::read_runs;
use crate::sheet::Sheet;
use crate::summary::{Spoilt, summarise};
use crate::{registry, smallest_cap, table};

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end generated -->";

/// Where it lies, below the root of a checkout.
pub const FILE: &str = "README.md";

/// Its text, and what the text should be: with the generated parts made anew of the results below `root`.
pub fn regenerated(root: &Path) -> anyhow::Result<(String, String)> {
    let file = root.join(FILE);
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let renewed = regenerate(&text, root).with_context(|| file.display().to_string())?;
    Ok((text, renewed))
}

fn regenerate(text: &str, root: &Path) -> anyhow::Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(BEGIN) {
        let (before, block) = rest.split_at(begin);
        begun(before)?;
        let (Some(head_end), Some(end)) = (block.find('\n'), block.find(END)) else {
            bail!(
                "a generated part has no end: {}",
                block.lines().next().unwrap_or_default()
            );
        };
        let head = &block[..head_end];
        if block[BEGIN.len()..end].contains(BEGIN) {
            bail!("a generated part has no end: {head}");
        }
        let what = head
            .trim_start_matches(BEGIN)
            .trim_end_matches("-->")
            .trim();
        write!(
            out,
            "{before}{head}\n{}\n{END}",
            part(what, root)?.trim_end()
        )?;
        rest = &block[end + END.len()..];
    }
    begun(rest)?;
    Ok(out + rest)
}

/// That text between generated parts has no end of one.
fn begun(text: &str) -> anyhow::Result<()> {
    match text.find(END) {
        None => Ok(()),
        Some(at) => {
            let before = text[..at].trim_end().lines().next_back();
            bail!(
                "a generated part has an end and no beginning, behind: {}",
                before.unwrap_or_default()
            )
        }
    }
}

fn part(what: &str, root: &Path) -> anyhow::Result<String> {
    match what.split_whitespace().collect::<Vec<_>>()[..] {
        ["catalogue"] => Ok(catalogue()),
        ["table", results, device, model] => {
            let lines = summarise(&read_runs(&root.join(results))?, Spoilt::LeftOut);
            let wanted = lines.into_iter().filter(|line| {
                line.configuration.device == device && line.configuration.model == model
            });
            Ok(table::markdown(&wanted.collect::<Vec<_>>()))
        }
        ["guide", machine, device, model] => guide(&root.join(machine), device, model),
        ["overhead", pairs] => overhead::markdown(&root.join(pairs)),
        ["smallest-caps", results, device, model] => {
            let mut found = smallest_cap::found(&read_runs(&root.join(results))?);
            found.retain(|found| {
                let c = &found.configuration;
                c.device == device && c.model == model
            });
            let mut sheets = table::smallest_caps(&found);
            // How runs ended is a sentence each, and stands in the report.
            sheets.iter_mut().for_each(Sheet::drop_last_column);
            Ok(sheets.iter().map(Sheet::markdown).collect())
        }
        _ => bail!("no part is called `{what}`"),
    }
}

/// What to take for a model of f32, from everything recorded on a machine. Figures of a GPU come before those of software that
/// poses as one.
fn guide(machine: &Path, device: &str, model: &str) -> anyhow::Result<String> {
    let device: DeviceSpec = device.parse().map_err(anyhow::Error::msg)?;
    let size: Size = model.parse().map_err(anyhow::Error::msg)?;
    let name = machine.file_name().unwrap_or_default().to_string_lossy();
    let recorded = advice::read(machine);
    let told = [false, true].map(|is_software| {
        let situation = Situation {
            size,
            dtype: Dtype::F32,
            memory: device.backend.memory_model(),
            device: Some(device),
            is_software,
            host_bytes: None,
            device_bytes: None,
        };
        let evidence = advice::evidence(&situation, &recorded, Whose::Named(&name));
        (situation, evidence)
    });
    let told = told
        .into_iter()
        .find_map(|(situation, evidence)| Some((situation, evidence.place?, evidence.records)));
    let (situation, place, records) =
        told.with_context(|| format!("{}: no times of {model} on {device}", machine.display()))?;
    let choices = advice::choices(&situation, &records);
    let title = format!(
        "{}, measured on {}",
        situation.title(Some(&place.device_name())),
        place.machine
    );
    Ok(advice::sheet(title, &advice::unbeaten(&choices)).markdown())
}

fn catalogue() -> String {
    let mut out = String::from("| experiment | what it does |\n| --- | --- |\n");
    for experiment in registry::all() {
        let (name, folder) = (experiment.name, experiment.folder);
        let summary = experiment.summary;
        writeln!(out, "| [{name}](experiments/{folder}) | {summary} |").expect("a string grows");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_the_markers_is_made_anew_and_the_rest_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let before =
            "# Title\n\n<!-- generated: catalogue -->\nold\n<!-- end generated -->\n\nThe end.\n";
        std::fs::write(root.path().join(FILE), before).unwrap();
        let (text, renewed) = regenerated(root.path()).unwrap();
        assert_eq!(text, before);
        assert!(renewed.starts_with("# Title\n\n<!-- generated: catalogue -->\n| experiment |"));
        assert!(
            renewed.contains("| [naive](experiments/naive) |"),
            "{renewed}"
        );
        assert!(renewed.ends_with("|\n<!-- end generated -->\n\nThe end.\n"));
        assert!(!renewed.contains("old"));
        assert_eq!(regenerate(&renewed, root.path()).unwrap(), renewed);
    }

    #[test]
    fn a_part_without_an_end_and_one_that_is_not_known_are_told() {
        let root = Path::new("");
        for (text, expected) in [
            (
                "<!-- generated: catalogue -->\n",
                "has no end: <!-- generated: catalogue -->",
            ),
            (
                "<!-- generated: catalogue -->\n<!-- generated: catalogue -->\n<!-- end generated -->",
                "has no end: <!-- generated: catalogue -->",
            ),
            (
                "words\n<!-- end generated -->\n",
                "an end and no beginning, behind: words",
            ),
            (
                "<!-- generated: cake -->\n<!-- end generated -->",
                "no part is called `cake`",
            ),
        ] {
            let error = regenerate(text, root).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

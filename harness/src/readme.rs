//! The generated parts of README.md: what stands between these markers is written by `harness readme`, and a
//! test says so when it is stale.
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
use crate::{atomic, registry, smallest_cap, table};

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end generated -->";

/// Brings the generated parts of a file up to date.
pub fn update(file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let root = file.parent().unwrap_or(Path::new(""));
    let renewed = regenerate(&text, root).with_context(|| file.display().to_string())?;
    atomic::write(file, renewed)
}

fn regenerate(text: &str, root: &Path) -> anyhow::Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(BEGIN) {
        let (before, block) = rest.split_at(begin);
        let (Some(head_end), Some(end)) = (block.find('\n'), block.find(END)) else {
            bail!(
                "a generated part has no end: {}",
                block.lines().next().unwrap_or_default()
            );
        };
        let head = &block[..head_end];
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
    Ok(out + rest)
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
        let (name, folder) = (experiment.name, experiment.experiment);
        let summary = experiment.summary;
        writeln!(out, "| [{name}](experiments/{folder}) | {summary} |").expect("a string grows");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_what_the_experiments_and_the_committed_results_say() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = std::fs::read_to_string(root.join("README.md")).unwrap();
        let renewed = regenerate(&text, &root).unwrap();
        assert!(
            renewed.contains("| [naive](experiments/naive) |"),
            "the README has no catalogue"
        );
        assert!(text == renewed, "README.md is stale: run `just readme`");
    }
}

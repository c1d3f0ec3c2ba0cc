//! The generated parts of README.md: what stands between these markers is written by `harness readme`, and a
//! test says so when it is stale.
//!
//! ```text
//! <!-- generated: catalogue -->                        the experiments, from their declarations
//! <!-- generated: guide RESULTS MEMORY MODEL -->      what to take: unified or discrete memory, likewise
//! <!-- generated: table RESULTS DEVICE MODEL -->       a table, from a committed folder of results
//! <!-- generated: smallest-caps RESULTS DEVICE MODEL -->  what each technique survives in, likewise
//! <!-- generated: overhead CSV -->                     what measuring costs, likewise
//! <!-- end generated -->
//! ```

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, bail};
use checkpoint::Dtype;
use lab::MemoryModel;

use crate::advice::{self, Situation};
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
        ["guide", results, memory, model] => guide(&root.join(results), memory, model),
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

/// What to take for a model of f32, from everything recorded on a machine.
fn guide(machine: &Path, memory: &str, model: &str) -> anyhow::Result<String> {
    let memory = [MemoryModel::Unified, MemoryModel::Discrete]
        .into_iter()
        .find(|known| known.name() == memory)
        .with_context(|| format!("no memory is called `{memory}`: unified, discrete"))?;
    let situation = Situation {
        size: model.parse().map_err(anyhow::Error::msg)?,
        dtype: Dtype::F32,
        memory,
        host_bytes: None,
        device_bytes: None,
    };
    let records = advice::recorded_on(machine, &situation);
    Ok(advice::guide(&situation, &records).markdown())
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
    #[cfg_attr(
        not(feature = "stores"),
        ignore = "the catalogue holds experiments of the feature `stores`"
    )]
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

//! `harness plot`: summary and charts of recorded results.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::cli::PlotArgs;
use crate::record::{Record, read_runs};
use crate::summary::{self, Line};
use crate::{charts, table};

pub fn plot(args: &PlotArgs) -> anyhow::Result<()> {
    let records = read_runs(&args.results)?;
    ensure!(
        !records.is_empty(),
        "{}: nothing is recorded there yet",
        args.results.display()
    );
    let plots = args
        .plots
        .clone()
        .unwrap_or_else(|| default_plots(&args.results));
    let lines = present(&args.results, &plots, &records)?;
    println!("{}", table::terminal(&lines));
    println!("charts: {}", plots.display());
    Ok(())
}

/// Writes the summary beside the results, and the charts.
pub fn present(results: &Path, plots: &Path, records: &[Record]) -> anyhow::Result<Vec<Line>> {
    let lines = summary::summarise(records);
    summary::write_csv(&lines, &results.join("summary.csv"))?;
    let markdown = results.join("summary.md");
    std::fs::write(&markdown, table::markdown(&lines))
        .with_context(|| format!("{}: cannot be written", markdown.display()))?;
    charts::draw_all(&lines, results, plots)?;
    Ok(lines)
}

/// `results/a/b` → `plots/a/b`; any other folder → its `plots`.
pub fn default_plots(results: &Path) -> PathBuf {
    match results.strip_prefix("results") {
        Ok(rest) if rest.components().count() > 0 => Path::new("plots").join(rest),
        _ => results.join("plots"),
    }
}

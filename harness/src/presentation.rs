//! Recorded results as people read them: tables, charts, judged claims, the report. Everything here is made of
//! a folder's rows and of the manifest that was kept with them, and can be made again at any time.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use checkpoint::{is_there, read_whole};

use crate::checkout::{PLOTS, RESULTS, shown};
use crate::claims::{Judged, judge};
use crate::manifest::{HostCaps, Manifest};
use crate::record::{self, Record};
use crate::results::{MANIFEST, MAX_RUNS_BYTES, read_runs};
use crate::sheet::Sheet;
use crate::smallest_cap::{self, Found};
use crate::summary::{self, Line, Spoilt};
use crate::{atomic, charts, driver, report, table};

/// A folder of results, summed up.
pub struct Presentation {
    pub results: PathBuf,
    pub plots: PathBuf,
    pub records: Vec<Record>,
    /// The manifest they were made by; `None` where none was kept.
    pub manifest: Option<Manifest>,
    pub lines: Vec<Line>,
    /// Where the smallest host caps were searched for: what was found.
    pub smallest_caps: Vec<Found>,
}

impl Presentation {
    /// Sums up what is recorded in a folder. The charts belong into `plots`, or where [`default_plots`] says.
    pub fn of(results: &Path, plots: Option<PathBuf>, spoilt: Spoilt) -> anyhow::Result<Self> {
        let records = read_runs(results)?;
        let kept = results.join(MANIFEST);
        let manifest = match is_there(&kept) {
            true => {
                let name = records[0].manifest.clone();
                Some(Manifest::load_as(name, &kept)?)
            }
            false => None,
        };
        let searched = manifest
            .as_ref()
            .is_some_and(|manifest| manifest.host_caps == HostCaps::Smallest);
        let smallest_caps = match searched {
            true => smallest_cap::found(&records),
            false => Vec::new(),
        };
        let mut lines = summary::summarise(&records, spoilt);
        if searched {
            // Every probe has a cap of its own: what they say is summed up above.
            lines.retain(|line| line.configuration.host_cap_bytes.is_none());
        }
        Ok(Presentation {
            results: results.to_owned(),
            plots: plots.unwrap_or_else(|| default_plots(results)),
            records,
            manifest,
            lines,
            smallest_caps,
        })
    }

    /// The manifest's claims, judged.
    pub fn claims(&self) -> Vec<Judged<'_>> {
        let claims = self.manifest.as_ref().map(|manifest| &*manifest.claims);
        judge(claims.unwrap_or_default(), &self.lines, &self.smallest_caps)
    }

    /// Whether any of it was made on a simulated device.
    pub fn is_simulated(&self) -> bool {
        is_simulated(&self.records)
    }

    /// Writes data dictionary, summary, charts and report. Of a simulated device's rows neither charts nor a report are made.
    pub fn write(&self) -> anyhow::Result<()> {
        atomic::write(&self.results.join(record::SCHEMA_FILE), self.dictionary()?)?;
        summary::write_csv(&self.lines, &self.results.join("summary.csv"))?;
        atomic::write(&self.results.join("summary.md"), self.markdown())?;
        if self.is_simulated() {
            return Ok(());
        }
        let charts = charts::draw_all(self)?;
        report::write(self, &charts)
    }

    /// Of the very columns that stand there.
    fn dictionary(&self) -> anyhow::Result<String> {
        let path = self.results.join("runs.csv");
        let bytes = read_whole(&path, MAX_RUNS_BYTES)?;
        let (schema, names) = record::columns_of(&bytes);
        Ok(record::dictionary(schema, &names))
    }

    /// The tables, for a write-up.
    pub fn markdown(&self) -> String {
        let caps = table::smallest_caps(&self.smallest_caps);
        let caps = caps.iter().map(Sheet::markdown);
        table::markdown(&self.lines) + &caps.collect::<String>()
    }

    /// The tables, for a terminal.
    pub fn terminal(&self) -> String {
        let caps = table::smallest_caps(&self.smallest_caps);
        let caps = caps.iter().map(Sheet::terminal);
        table::terminal(&self.lines) + &caps.collect::<String>()
    }
}

/// Whether any row is of a stand-in for a device, whose figures are for tests alone.
pub fn is_simulated(records: &[Record]) -> bool {
    let mut drivers = records.iter().filter_map(|record| record.driver.as_deref());
    drivers.any(driver::is_simulated)
}

/// `results/a/b` → `plots/a/b`, wherever that is; any other folder → its `plots`.
pub fn default_plots(results: &Path) -> PathBuf {
    let absolute = std::path::absolute(results).unwrap_or(results.to_owned());
    let mut up = absolute.ancestors();
    let (manifest, machine, all) = (up.next(), up.next(), up.next());
    let is_committed = all.and_then(Path::file_name) == Some(OsStr::new(RESULTS));
    let committed = || {
        let place = Path::new(machine?.file_name()?).join(manifest?.file_name()?);
        Some(shown(&all?.with_file_name(PLOTS).join(place)))
    };
    let committed = is_committed.then(committed).flatten();
    committed.unwrap_or_else(|| results.join(PLOTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_results_have_their_charts_beside_them_and_others_in_them() {
        for (results, plots) in [
            ("results/m/quick", "plots/m/quick"),
            ("../results/m/quick/", "../plots/m/quick"),
            ("runs/m/quick", "runs/m/quick/plots"),
            ("out", "out/plots"),
        ] {
            assert_eq!(default_plots(Path::new(results)), Path::new(plots));
        }
    }
}

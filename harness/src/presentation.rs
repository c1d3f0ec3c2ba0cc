//! Recorded results as people read them: tables, charts, judged claims, the report. Everything here is made of
//! a folder's rows and of the manifest that was kept with them, and can be made again at any time.

use std::path::{Path, PathBuf};

use crate::claims::{Judged, Verdict, judge};
use crate::manifest::{HostCaps, Manifest};
use crate::record::Record;
use crate::results::read_runs;
use crate::sheet::Sheet;
use crate::smallest_cap::{self, Found};
use crate::summary::{self, Line, Spoilt};
use crate::{atomic, charts, report, table};

/// What the manifest is called that is kept with the results.
pub const MANIFEST: &str = "manifest.toml";

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
        let manifest = match kept.exists() {
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

    /// How many claims do not hold, without saying so themselves. A broken memory contract is one.
    pub fn broken_claims(&self) -> usize {
        let claims = self.claims();
        let broken = claims
            .iter()
            .filter(|judged| judged.verdict() == Verdict::DoesNotHold);
        let contracts = self.lines.iter().filter(|line| line.broken_contracts > 0);
        broken.count() + contracts.count()
    }

    /// Writes summary, charts and report.
    pub fn write(&self) -> anyhow::Result<()> {
        summary::write_csv(&self.lines, &self.results.join("summary.csv"))?;
        atomic::write(&self.results.join("summary.md"), self.markdown())?;
        let charts = charts::draw_all(self)?;
        report::write(self, &charts)
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

/// `results/a/b` → `plots/a/b`; any other folder → its `plots`.
pub fn default_plots(results: &Path) -> PathBuf {
    match results.strip_prefix("results") {
        Ok(rest) if rest.components().count() > 0 => Path::new("plots").join(rest),
        _ => results.join("plots"),
    }
}

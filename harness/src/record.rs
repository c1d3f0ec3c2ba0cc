//! The record: one row a run, appended and synced as soon as the run ends.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use lab::{Outcome, Sample, Status};
use serde::{Deserialize, Serialize};

/// Raised when a column changes its meaning.
pub const SCHEMA: u32 = 1;

/// One run. The fields are the columns of `runs.csv`, in this order: integer bytes, seconds, empty for
/// what could not be measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub schema: u32,
    pub run_id: String,
    pub manifest: String,
    pub manifest_sha256: String,
    pub commit: Option<String>,
    pub dirty: Option<bool>,
    pub started_at: String,
    pub machine: String,
    pub device: String,
    pub backend: String,
    pub memory_model: String,
    pub experiment: String,
    pub model: String,
    pub dtype: String,
    pub format: Option<String>,
    pub parameters: u64,
    pub model_bytes: u64,
    pub largest_tensor_bytes: u64,
    pub cache: String,
    pub resident_fraction: Option<f64>,
    pub host_cap_bytes: Option<u64>,
    pub repeat: u32,
    pub status: Status,
    pub reason: Option<String>,
    pub verified: bool,
    pub load_seconds: Option<f64>,
    pub first_forward_seconds: Option<f64>,
    pub host_heap_peak_bytes: Option<u64>,
    pub host_rss_peak_bytes: Option<u64>,
    pub host_anon_peak_bytes: Option<u64>,
    pub host_file_peak_bytes: Option<u64>,
    pub host_peak_phase: Option<String>,
    pub device_in_use_peak_bytes: Option<u64>,
    pub device_reserved_peak_bytes: Option<u64>,
    pub device_driver_peak_bytes: Option<u64>,
    pub device_peak_phase: Option<String>,
    pub bytes_read: Option<u64>,
    pub host_contract_bytes: Option<u64>,
    pub device_contract_bytes: Option<u64>,
    pub contract_held: Option<bool>,
}

impl Record {
    /// A row with nothing in it yet.
    pub fn unmeasured() -> Record {
        Record {
            schema: SCHEMA,
            run_id: String::new(),
            manifest: String::new(),
            manifest_sha256: String::new(),
            commit: None,
            dirty: None,
            started_at: String::new(),
            machine: String::new(),
            device: String::new(),
            backend: String::new(),
            memory_model: String::new(),
            experiment: String::new(),
            model: String::new(),
            dtype: String::new(),
            format: None,
            parameters: 0,
            model_bytes: 0,
            largest_tensor_bytes: 0,
            cache: String::new(),
            resident_fraction: None,
            host_cap_bytes: None,
            repeat: 0,
            status: Status::Failed,
            reason: None,
            verified: false,
            load_seconds: None,
            first_forward_seconds: None,
            host_heap_peak_bytes: None,
            host_rss_peak_bytes: None,
            host_anon_peak_bytes: None,
            host_file_peak_bytes: None,
            host_peak_phase: None,
            device_in_use_peak_bytes: None,
            device_reserved_peak_bytes: None,
            device_driver_peak_bytes: None,
            device_peak_phase: None,
            bytes_read: None,
            host_contract_bytes: None,
            device_contract_bytes: None,
            contract_held: None,
        }
    }

    /// Copies what was measured.
    pub fn fill(&mut self, outcome: &Outcome) {
        self.status = outcome.status;
        self.reason.clone_from(&outcome.reason);
        self.verified = outcome.verified;
        self.resident_fraction = outcome.resident_fraction.map(|value| round(value, 1e4));
        self.load_seconds = outcome.load_seconds.map(|value| round(value, 1e6));
        self.first_forward_seconds = outcome.first_forward_seconds.map(|value| round(value, 1e6));
        self.host_heap_peak_bytes = outcome.host_heap_peak_bytes;
        self.host_rss_peak_bytes = outcome.host_rss_peak_bytes;
        self.host_anon_peak_bytes = outcome.host_anon_peak_bytes;
        self.host_file_peak_bytes = outcome.host_file_peak_bytes;
        self.host_peak_phase.clone_from(&outcome.host_peak_phase);
        self.device_in_use_peak_bytes = outcome.device_in_use_peak_bytes;
        self.device_reserved_peak_bytes = outcome.device_reserved_peak_bytes;
        self.device_driver_peak_bytes = outcome.device_driver_peak_bytes;
        self.device_peak_phase
            .clone_from(&outcome.device_peak_phase);
        self.bytes_read = outcome.bytes_read;
        self.host_contract_bytes = outcome.host_contract_bytes;
        self.device_contract_bytes = outcome.device_contract_bytes;
        self.contract_held = outcome.contract_held();
    }
}

fn round(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

/// A folder of results.
pub struct Results {
    folder: PathBuf,
    runs: File,
}

impl Results {
    /// Opens the folder for appending, creating it first. A row that an interrupted write left half is cut
    /// off. Returns the rows that are there.
    pub fn open(folder: &Path) -> anyhow::Result<(Results, Vec<Record>)> {
        std::fs::create_dir_all(folder.join("timelines")).with_context(|| {
            format!("{}: the results cannot be written there", folder.display())
        })?;
        let path = runs_path(folder);
        let mut kept = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let whole = kept
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        kept.truncate(whole);
        let records = parse(&kept, &path)?;
        let runs = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        runs.set_len(whole as u64)
            .with_context(|| path.display().to_string())?;
        let folder = folder.to_owned();
        Ok((Results { folder, runs }, records))
    }

    /// Appends a row and its timeline, and waits until they are on the disk.
    pub fn append(&mut self, record: &Record, timeline: &[Sample]) -> anyhow::Result<()> {
        if !timeline.is_empty() {
            write_timeline(&timeline_path(&self.folder, &record.run_id), timeline)?;
        }
        let path = runs_path(&self.folder);
        let is_new = self.runs.metadata()?.len() == 0;
        let mut writer = csv::WriterBuilder::new()
            .has_headers(is_new)
            .from_writer(Vec::new());
        writer.serialize(record)?;
        // In one write: a reader never sees half a row of a harness that is still running.
        self.runs
            .write_all(&writer.into_inner()?)
            .and_then(|()| self.runs.sync_data())
            .with_context(|| format!("{}: the run could not be recorded", path.display()))
    }
}

/// Every row of a folder of results.
pub fn read_runs(folder: &Path) -> anyhow::Result<Vec<Record>> {
    let path = runs_path(folder);
    let bytes = std::fs::read(&path)
        .with_context(|| format!("{}: no results can be read there", path.display()))?;
    parse(&bytes, &path)
}

fn parse(bytes: &[u8], path: &Path) -> anyhow::Result<Vec<Record>> {
    let rows = csv::Reader::from_reader(bytes).into_deserialize();
    let rows: Result<Vec<Record>, _> = rows.collect();
    rows.with_context(|| format!("{}: is no record of this version", path.display()))
}

/// The timeline of a run, where one was recorded.
pub fn read_timeline(folder: &Path, run_id: &str) -> anyhow::Result<Vec<Sample>> {
    let path = timeline_path(folder, run_id);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let rows = csv::Reader::from_path(&path)?.into_deserialize();
    let rows: Result<Vec<Sample>, _> = rows.collect();
    rows.with_context(|| format!("{}: is no timeline", path.display()))
}

fn write_timeline(path: &Path, timeline: &[Sample]) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_path(path)?;
    for sample in timeline {
        let time_seconds = round(sample.time_seconds, 1e4);
        writer.serialize(Sample {
            time_seconds,
            ..*sample
        })?;
    }
    writer.flush().with_context(|| path.display().to_string())
}

fn runs_path(folder: &Path) -> PathBuf {
    folder.join("runs.csv")
}

fn timeline_path(folder: &Path, run_id: &str) -> PathBuf {
    folder.join("timelines").join(format!("{run_id}.csv"))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn example(run_id: &str) -> Record {
        let mut record = Record {
            run_id: run_id.to_owned(),
            ..Record::unmeasured()
        };
        record.fill(&Outcome::ended(Status::Failed, "a reason, with a comma"));
        record
    }

    #[test]
    fn the_columns_are_those_of_the_design_in_its_order() {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.serialize(example("a")).unwrap();
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let expected = "schema,run_id,manifest,manifest_sha256,commit,dirty,started_at,machine,device,\
            backend,memory_model,experiment,model,dtype,format,parameters,model_bytes,\
            largest_tensor_bytes,cache,resident_fraction,host_cap_bytes,repeat,status,reason,verified,\
            load_seconds,first_forward_seconds,host_heap_peak_bytes,host_rss_peak_bytes,\
            host_anon_peak_bytes,host_file_peak_bytes,host_peak_phase,device_in_use_peak_bytes,\
            device_reserved_peak_bytes,device_driver_peak_bytes,device_peak_phase,bytes_read,\
            host_contract_bytes,device_contract_bytes,contract_held";
        assert_eq!(text.lines().next(), Some(expected));
    }

    #[test]
    fn what_was_recorded_is_read_again_and_a_half_row_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (mut results, none) = Results::open(folder.path()).unwrap();
        assert!(none.is_empty());
        results.append(&example("a"), &[]).unwrap();
        results.append(&example("b"), &[]).unwrap();
        let path = runs_path(folder.path());
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..40 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let (mut results, rows) = Results::open(folder.path()).unwrap();
            assert_eq!(rows.len(), 1);
            results.append(&example("c"), &[]).unwrap();
            let ids: Vec<_> = read_runs(folder.path())
                .unwrap()
                .into_iter()
                .map(|r| r.run_id)
                .collect();
            assert_eq!(ids, ["a", "c"]);
        }
    }
}

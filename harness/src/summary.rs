//! From the rows of a record to one line per configuration.

use std::path::Path;

use lab::Status;

use crate::atomic;
use crate::configuration::Configuration;
use crate::record::Record;
use crate::registry;

/// Median, minimum and maximum of a measure over the repeats of a configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` where nothing was measured.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => (values[middle - 1] + values[middle]) / 2.0,
        };
        Some(Spread { median, min, max })
    }
}

/// Whether runs that something may have spoilt count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoilt {
    /// Only where a configuration has no others; its numbers are marked then.
    LeftOut,
    /// As any other.
    Counted,
}

impl Spoilt {
    /// As a person chooses on the command line.
    pub fn counted_if(counted: bool) -> Spoilt {
        match counted {
            true => Spoilt::Counted,
            false => Spoilt::LeftOut,
        }
    }
}

/// The runs of one configuration, summed up. Measures are those of runs that ended ok and verified.
#[derive(Debug, Clone)]
pub struct Line {
    pub configuration: Configuration,
    pub backend: String,
    /// What loaded it: a framework and its version, where the record tells.
    pub framework: Option<String>,
    pub model_bytes: u64,
    pub largest_tensor_bytes: u64,
    pub is_unified: bool,
    pub runs: usize,
    pub ok: usize,
    pub skipped: usize,
    /// Runs found right, of those that were made.
    pub verified: usize,
    /// The status and reason of the first run that did not end ok.
    pub trouble: Option<(Status, String)>,
    /// Runs whose peaks could be held against what their experiment promises, and those over it.
    pub judged_contracts: usize,
    pub broken_contracts: usize,
    pub host_contract_bytes: Option<u64>,
    pub device_contract_bytes: Option<u64>,
    /// Runs that something may have spoilt, and by what the first of them.
    pub spoilt: usize,
    pub spoilt_by: Option<String>,
    /// The measures are those of spoilt runs: there are no others.
    pub is_spoilt: bool,
    /// Phases in which the peaks of the median run were set.
    pub host_peak_phase: Option<String>,
    pub device_peak_phase: Option<String>,
    /// Of the clean runs, and of those that may be spoilt.
    pub load_samples_seconds: Vec<f64>,
    pub spoilt_load_samples_seconds: Vec<f64>,
    pub load_seconds: Option<Spread>,
    pub first_forward_seconds: Option<Spread>,
    /// Load and first forward together: what a person waits for.
    pub ready_seconds: Option<Spread>,
    pub logits_error: Option<Spread>,
    pub host_heap_peak_bytes: Option<Spread>,
    pub host_rss_peak_bytes: Option<Spread>,
    pub host_anon_peak_bytes: Option<Spread>,
    pub host_file_peak_bytes: Option<Spread>,
    pub host_cgroup_peak_bytes: Option<Spread>,
    pub device_in_use_peak_bytes: Option<Spread>,
    pub device_reserved_peak_bytes: Option<Spread>,
    pub device_driver_peak_bytes: Option<Spread>,
    pub device_pool_used_peak_bytes: Option<Spread>,
    pub device_pool_reserved_peak_bytes: Option<Spread>,
    /// Of the run with the median load time: the one whose timeline is shown.
    pub median_run_id: Option<String>,
}

/// A measure of a line, under the name that it has in records.
pub type Measure = (&'static str, fn(&Line) -> Option<Spread>);

/// Everything that is measured.
pub const MEASURES: [Measure; 14] = [
    ("load_seconds", |line| line.load_seconds),
    ("first_forward_seconds", |line| line.first_forward_seconds),
    ("ready_seconds", |line| line.ready_seconds),
    ("logits_error", |line| line.logits_error),
    ("host_heap_peak_bytes", |line| line.host_heap_peak_bytes),
    ("host_rss_peak_bytes", |line| line.host_rss_peak_bytes),
    ("host_anon_peak_bytes", |line| line.host_anon_peak_bytes),
    ("host_file_peak_bytes", |line| line.host_file_peak_bytes),
    ("host_cgroup_peak_bytes", |line| line.host_cgroup_peak_bytes),
    ("device_in_use_peak_bytes", |line| {
        line.device_in_use_peak_bytes
    }),
    ("device_reserved_peak_bytes", |line| {
        line.device_reserved_peak_bytes
    }),
    ("device_driver_peak_bytes", |line| {
        line.device_driver_peak_bytes
    }),
    ("device_pool_used_peak_bytes", |line| {
        line.device_pool_used_peak_bytes
    }),
    ("device_pool_reserved_peak_bytes", |line| {
        line.device_pool_reserved_peak_bytes
    }),
];

/// The rows of each configuration, made by the code that made its last one: after a change of the code, what
/// was measured before stays recorded and is not mixed with what is measured now.
pub fn by_configuration(records: &[Record]) -> Vec<(Configuration, Vec<&Record>)> {
    let mut found: Vec<(Configuration, Vec<&Record>)> = Vec::new();
    for record in records {
        let configuration = record.configuration();
        match found.iter_mut().find(|(known, _)| *known == configuration) {
            Some((_, rows)) => rows.push(record),
            None => found.push((configuration, vec![record])),
        }
    }
    for (_, rows) in &mut found {
        let newest = rows.last().map(|row| row.code());
        rows.retain(|row| Some(row.code()) == newest);
    }
    found
}

/// One line per configuration: devices by name, sizes from small to large, experiments in the order of the
/// registry.
pub fn summarise(records: &[Record], spoilt: Spoilt) -> Vec<Line> {
    let summed_up = by_configuration(records).into_iter();
    let mut lines: Vec<Line> = summed_up
        .map(|(configuration, rows)| line(configuration, &rows, spoilt))
        .collect();
    lines.sort_by_cached_key(|line| {
        let c = &line.configuration;
        let place = registry::position(&c.experiment);
        let group = (c.device.clone(), line.model_bytes, c.dtype.clone());
        (
            group,
            c.cache.clone(),
            c.host_cap_bytes,
            place,
            c.experiment.clone(),
        )
    });
    lines
}

fn line(configuration: Configuration, rows: &[&Record], count_spoilt: Spoilt) -> Line {
    let ok: Vec<&Record> = rows
        .iter()
        .copied()
        .filter(|row| row.is_measured())
        .collect();
    let (clean, spoilt): (Vec<&Record>, Vec<&Record>) =
        ok.iter().partition(|row| row.spoilt_by.is_none());
    let is_spoilt = clean.is_empty() && !spoilt.is_empty();
    let mut counted = match count_spoilt {
        Spoilt::LeftOut if !is_spoilt => clean.clone(),
        _ => ok.clone(),
    };
    counted.sort_by(|a, b| {
        let key = |row: &Record| row.load_seconds.unwrap_or(f64::INFINITY);
        key(a).total_cmp(&key(b))
    });
    let spread = |field: fn(&Record) -> Option<u64>| {
        Spread::of(
            counted
                .iter()
                .filter_map(|row| field(row))
                .map(|bytes| bytes as f64),
        )
    };
    let seconds =
        |field: fn(&Record) -> Option<f64>| Spread::of(counted.iter().filter_map(|row| field(row)));
    let samples = |rows: &[&Record]| rows.iter().filter_map(|row| row.load_seconds).collect();
    let median_run = counted.get(counted.len().saturating_sub(1) / 2);
    let trouble = rows.iter().find(|row| !row.is_measured());
    let judged = || ok.iter().filter_map(|row| row.contract_held);
    let first = rows[0];
    Line {
        configuration,
        backend: first.backend.clone(),
        framework: ok.iter().find_map(|row| row.framework.clone()),
        model_bytes: first.model_bytes,
        largest_tensor_bytes: first.largest_tensor_bytes,
        is_unified: first.memory_model == "unified",
        runs: rows.len(),
        ok: ok.len(),
        skipped: rows
            .iter()
            .filter(|row| row.status == Status::Skipped)
            .count(),
        verified: rows.iter().filter(|row| row.verified).count(),
        trouble: trouble.map(|row| (row.status, row.reason.clone().unwrap_or_default())),
        judged_contracts: judged().count(),
        broken_contracts: judged().filter(|held| !held).count(),
        host_contract_bytes: ok.iter().find_map(|row| row.host_contract_bytes),
        device_contract_bytes: ok.iter().find_map(|row| row.device_contract_bytes),
        spoilt: spoilt.len(),
        spoilt_by: spoilt.first().and_then(|row| row.spoilt_by.clone()),
        is_spoilt,
        host_peak_phase: median_run.and_then(|row| row.host_peak_phase.clone()),
        device_peak_phase: median_run.and_then(|row| row.device_peak_phase.clone()),
        load_samples_seconds: samples(&clean),
        spoilt_load_samples_seconds: samples(&spoilt),
        load_seconds: seconds(|row| row.load_seconds),
        first_forward_seconds: seconds(|row| row.first_forward_seconds),
        ready_seconds: seconds(|row| Some(row.load_seconds? + row.first_forward_seconds?)),
        logits_error: seconds(|row| row.logits_error),
        host_heap_peak_bytes: spread(|row| row.host_heap_peak_bytes),
        host_rss_peak_bytes: spread(|row| row.host_rss_peak_bytes),
        host_anon_peak_bytes: spread(|row| row.host_anon_peak_bytes),
        host_file_peak_bytes: spread(|row| row.host_file_peak_bytes),
        host_cgroup_peak_bytes: spread(|row| row.host_cgroup_peak_bytes),
        device_in_use_peak_bytes: spread(|row| row.device_in_use_peak_bytes),
        device_reserved_peak_bytes: spread(|row| row.device_reserved_peak_bytes),
        device_driver_peak_bytes: spread(|row| row.device_driver_peak_bytes),
        device_pool_used_peak_bytes: spread(|row| row.device_pool_used_peak_bytes),
        device_pool_reserved_peak_bytes: spread(|row| row.device_pool_reserved_peak_bytes),
        median_run_id: median_run.map(|row| row.run_id.clone()),
    }
}

impl Line {
    /// A peak as a multiple of the model's bytes.
    pub fn times_model(&self, bytes: f64) -> f64 {
        bytes / self.model_bytes as f64
    }
}

/// `summary.csv`: medians, minima, maxima and multiples of the model.
pub fn write_csv(lines: &[Line], path: &Path) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut header: Vec<String> = [
        "device",
        "backend",
        "model",
        "dtype",
        "cache",
        "host_cap_bytes",
        "format",
        "experiment",
        "framework",
        "tuning",
        "model_bytes",
        "largest_tensor_bytes",
        "runs",
        "ok",
        "spoilt",
        "host_peak_phase",
        "device_peak_phase",
    ]
    .map(str::to_owned)
    .to_vec();
    for (name, _) in MEASURES {
        header.extend(["median", "min", "max"].map(|which| format!("{name}_{which}")));
        if name.ends_with("_bytes") {
            header.push(format!("{}_times_model", name.trim_end_matches("_bytes")));
        }
    }
    writer.write_record(&header)?;
    for line in lines {
        let configuration = &line.configuration;
        let cap = configuration.host_cap_bytes.map(|cap| cap.to_string());
        let mut row = vec![
            configuration.device.clone(),
            line.backend.clone(),
            configuration.model.clone(),
            configuration.dtype.clone(),
            configuration.cache.clone(),
            cap.unwrap_or_default(),
            configuration.format.clone().unwrap_or_default(),
            configuration.experiment.clone(),
            line.framework.clone().unwrap_or_default(),
            configuration.tuning.clone().unwrap_or_default(),
            line.model_bytes.to_string(),
            line.largest_tensor_bytes.to_string(),
            line.runs.to_string(),
            line.ok.to_string(),
            line.spoilt.to_string(),
            line.host_peak_phase.clone().unwrap_or_default(),
            line.device_peak_phase.clone().unwrap_or_default(),
        ];
        for (name, measure) in MEASURES {
            let Some(spread) = measure(line) else {
                let columns = if name.ends_with("_bytes") { 4 } else { 3 };
                row.extend(vec![String::new(); columns]);
                continue;
            };
            row.extend([spread.median, spread.min, spread.max].map(|value| value.to_string()));
            if name.ends_with("_bytes") {
                row.push(format!("{:.4}", line.times_model(spread.median)));
            }
        }
        writer.write_record(row)?;
    }
    atomic::write(path, writer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.5, 4.0));
        assert_eq!(Spread::of([7.0]).unwrap().median, 7.0);
        assert!(Spread::of([]).is_none());
    }

    fn row(commit: &str, load_seconds: f64, spoilt_by: Option<&str>) -> Record {
        Record {
            commit: Some(commit.to_owned()),
            status: Status::Ok,
            verified: true,
            model_bytes: 1,
            load_seconds: Some(load_seconds),
            spoilt_by: spoilt_by.map(str::to_owned),
            ..Record::unmeasured()
        }
    }

    fn median(records: &[Record], spoilt: Spoilt) -> (f64, bool) {
        let lines = summarise(records, spoilt);
        assert_eq!(lines.len(), 1);
        (lines[0].load_seconds.unwrap().median, lines[0].is_spoilt)
    }

    #[test]
    fn spoilt_runs_are_left_out_unless_asked_for_or_nothing_else_is_there() {
        let rows = [
            row("a", 1.0, None),
            row("a", 2.0, None),
            row("a", 9.0, Some("swap")),
        ];
        assert_eq!(median(&rows, Spoilt::LeftOut), (1.5, false));
        assert_eq!(median(&rows, Spoilt::Counted), (2.0, false));
        assert_eq!(median(&rows[2..], Spoilt::LeftOut), (9.0, true));
    }

    #[test]
    fn what_older_code_measured_is_not_mixed_with_what_newer_code_did() {
        let rows = [row("a", 1.0, None), row("b", 5.0, None)];
        assert_eq!(median(&rows, Spoilt::LeftOut), (5.0, false));
    }
}

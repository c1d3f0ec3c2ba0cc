//! From the rows of a record to one line per configuration.

use std::path::Path;

use anyhow::Context;
use lab::Status;

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

/// What tells configurations apart: everything but the repeat.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Configuration {
    pub experiment: String,
    pub model: String,
    pub device: String,
    pub dtype: String,
    pub cache: String,
}

/// The runs of one configuration, summed up. Measures are those of runs that ended ok and verified.
#[derive(Debug, Clone)]
pub struct Line {
    pub configuration: Configuration,
    pub backend: String,
    pub format: Option<String>,
    pub model_bytes: u64,
    pub largest_tensor_bytes: u64,
    pub is_unified: bool,
    pub runs: usize,
    pub ok: usize,
    /// The status and reason of the first run that did not end ok.
    pub trouble: Option<(Status, String)>,
    /// Runs whose peaks were over what their experiment promises.
    pub broken_contracts: usize,
    pub load_seconds: Option<Spread>,
    pub load_samples_seconds: Vec<f64>,
    pub first_forward_seconds: Option<Spread>,
    pub host_heap_peak_bytes: Option<Spread>,
    pub host_rss_peak_bytes: Option<Spread>,
    pub host_anon_peak_bytes: Option<Spread>,
    pub host_file_peak_bytes: Option<Spread>,
    pub device_in_use_peak_bytes: Option<Spread>,
    pub device_reserved_peak_bytes: Option<Spread>,
    /// Of the run with the median load time: the one whose timeline is shown.
    pub median_run_id: Option<String>,
}

/// One line per configuration: devices and sizes in the order of the record's plan, experiments in that of
/// the registry.
pub fn summarise(records: &[Record]) -> Vec<Line> {
    let mut lines: Vec<(Configuration, Vec<&Record>)> = Vec::new();
    for record in records {
        let configuration = Configuration {
            experiment: record.experiment.clone(),
            model: record.model.clone(),
            device: record.device.clone(),
            dtype: record.dtype.clone(),
            cache: record.cache.clone(),
        };
        match lines.iter_mut().find(|(known, _)| *known == configuration) {
            Some((_, rows)) => rows.push(record),
            None => lines.push((configuration, vec![record])),
        }
    }
    lines.sort_by(|(a, a_rows), (b, b_rows)| {
        let key = |c: &Configuration, rows: &[&Record]| {
            let place = registry::position(&c.experiment);
            (
                c.device.clone(),
                rows[0].model_bytes,
                c.dtype.clone(),
                c.cache.clone(),
                place,
            )
        };
        key(a, a_rows).cmp(&key(b, b_rows))
    });
    lines
        .into_iter()
        .map(|(configuration, rows)| line(configuration, &rows))
        .collect()
}

fn line(configuration: Configuration, rows: &[&Record]) -> Line {
    let ok: Vec<&Record> = rows
        .iter()
        .copied()
        .filter(|row| row.status == Status::Ok && row.verified)
        .collect();
    let bytes = |field: fn(&Record) -> Option<u64>| {
        Spread::of(
            ok.iter()
                .filter_map(|row| field(row))
                .map(|bytes| bytes as f64),
        )
    };
    let mut by_time: Vec<_> = ok.iter().filter(|row| row.load_seconds.is_some()).collect();
    by_time.sort_by(|a, b| {
        a.load_seconds
            .partial_cmp(&b.load_seconds)
            .expect("times are numbers")
    });
    let median_run = by_time.get(by_time.len().saturating_sub(1) / 2);
    let trouble = rows
        .iter()
        .find(|row| row.status != Status::Ok || !row.verified);
    let first = rows[0];
    Line {
        configuration,
        backend: first.backend.clone(),
        format: first.format.clone(),
        model_bytes: first.model_bytes,
        largest_tensor_bytes: first.largest_tensor_bytes,
        is_unified: first.memory_model == "unified",
        runs: rows.len(),
        ok: ok.len(),
        trouble: trouble.map(|row| (row.status, row.reason.clone().unwrap_or_default())),
        broken_contracts: ok
            .iter()
            .filter(|row| row.contract_held == Some(false))
            .count(),
        load_seconds: Spread::of(ok.iter().filter_map(|row| row.load_seconds)),
        load_samples_seconds: ok.iter().filter_map(|row| row.load_seconds).collect(),
        first_forward_seconds: Spread::of(ok.iter().filter_map(|row| row.first_forward_seconds)),
        host_heap_peak_bytes: bytes(|row| row.host_heap_peak_bytes),
        host_rss_peak_bytes: bytes(|row| row.host_rss_peak_bytes),
        host_anon_peak_bytes: bytes(|row| row.host_anon_peak_bytes),
        host_file_peak_bytes: bytes(|row| row.host_file_peak_bytes),
        device_in_use_peak_bytes: bytes(|row| row.device_in_use_peak_bytes),
        device_reserved_peak_bytes: bytes(|row| row.device_reserved_peak_bytes),
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
    type Measure = (&'static str, fn(&Line) -> Option<Spread>);
    let measures: [Measure; 8] = [
        ("load_seconds", |line| line.load_seconds),
        ("first_forward_seconds", |line| line.first_forward_seconds),
        ("host_heap_peak_bytes", |line| line.host_heap_peak_bytes),
        ("host_rss_peak_bytes", |line| line.host_rss_peak_bytes),
        ("host_anon_peak_bytes", |line| line.host_anon_peak_bytes),
        ("host_file_peak_bytes", |line| line.host_file_peak_bytes),
        ("device_in_use_peak_bytes", |line| {
            line.device_in_use_peak_bytes
        }),
        ("device_reserved_peak_bytes", |line| {
            line.device_reserved_peak_bytes
        }),
    ];
    let mut header: Vec<String> = [
        "device",
        "backend",
        "model",
        "dtype",
        "cache",
        "format",
        "experiment",
        "model_bytes",
        "largest_tensor_bytes",
        "runs",
        "ok",
    ]
    .map(str::to_owned)
    .to_vec();
    for (name, _) in measures {
        header.extend(["median", "min", "max"].map(|which| format!("{name}_{which}")));
        if name.ends_with("_bytes") {
            header.push(format!("{}_times_model", name.trim_end_matches("_bytes")));
        }
    }
    writer.write_record(&header)?;
    for line in lines {
        let configuration = &line.configuration;
        let mut row = vec![
            configuration.device.clone(),
            line.backend.clone(),
            configuration.model.clone(),
            configuration.dtype.clone(),
            configuration.cache.clone(),
            line.format.clone().unwrap_or_default(),
            configuration.experiment.clone(),
            line.model_bytes.to_string(),
            line.largest_tensor_bytes.to_string(),
            line.runs.to_string(),
            line.ok.to_string(),
        ];
        for (name, measure) in measures {
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
    std::fs::write(path, writer.into_inner()?)
        .with_context(|| format!("{}: cannot be written", path.display()))
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
}

//! From the rows of a record to one line per configuration.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use lab::{Measures, Quantity, Spoiling, Status, Unit};

use crate::atomic;
use crate::configuration::Configuration;
use crate::driver::device_name;
use crate::escape;
use crate::record::Record;
use crate::registry;

/// A measure over the repeats of a configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// How many runs it rests on.
    pub runs: usize,
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
        Some(Spread {
            median,
            min,
            max,
            runs: values.len(),
        })
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

/// The runs of one configuration, summed up.
#[derive(Debug, Clone)]
pub struct Line {
    pub configuration: Configuration,
    pub backend: String,
    /// What the device is, and what drives it, where the record tells.
    pub driver: Option<String>,
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
    /// Runs that ended ok and verified, the fastest first: measures are theirs.
    pub good: Vec<Good>,
    count_spoilt: Spoilt,
}

/// A run that ended ok and verified.
#[derive(Debug, Clone)]
pub struct Good {
    pub run_id: String,
    pub repeat: u32,
    pub spoilt_by: Vec<Spoiling>,
    pub measures: Arc<Measures>,
}

impl Good {
    /// Whether something moved numbers of this kind.
    pub fn is_spoilt(&self, quantity: Quantity) -> bool {
        self.spoilt_by
            .iter()
            .any(|spoiling| spoiling.moves(quantity))
    }
}

/// A measure by its name: a column of what is measured, or computed from some.
#[derive(Clone, Copy)]
pub struct Measure {
    pub name: &'static str,
    pub quantity: Quantity,
    pub of: fn(&Measures) -> Option<f64>,
}

/// Everything that is measured and a number, in the order of records.
pub fn measures() -> impl Iterator<Item = Measure> {
    let ready = Measure {
        name: "ready_seconds",
        quantity: Quantity::Time,
        of: Measures::ready_seconds,
    };
    let columns = Measures::COLUMNS.iter();
    let numbers = columns.filter(|column| !matches!(column.unit, Unit::Text | Unit::Boolean));
    let named = numbers.map(|column| Measure {
        name: column.name,
        quantity: match column.unit {
            Unit::Seconds => Quantity::Time,
            _ => Quantity::Memory,
        },
        of: column.number,
    });
    named.chain([ready])
}

/// The measure of this name.
pub fn measure(name: &str) -> Option<Measure> {
    measures().find(|measure| measure.name == name)
}

/// The rows of each configuration, made by the code that made its last one: after a change of the code, what
/// was measured before stays recorded and is not mixed with what is measured now.
pub fn by_configuration(records: &[Record]) -> Vec<(Configuration, Vec<&Record>)> {
    let mut found: Vec<(Configuration, Vec<&Record>)> = Vec::new();
    let mut places: HashMap<Configuration, usize> = HashMap::new();
    for record in records {
        let configuration = record.configuration();
        match places.get(&configuration) {
            Some(&place) => found[place].1.push(record),
            None => {
                places.insert(configuration.clone(), found.len());
                found.push((configuration, vec![record]));
            }
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
    let mut ok: Vec<&Record> = rows
        .iter()
        .copied()
        .filter(|row| row.is_measured())
        .collect();
    ok.sort_by(|a, b| {
        let key = |row: &Record| row.measures.load_seconds.unwrap_or(f64::INFINITY);
        key(a).total_cmp(&key(b))
    });
    let trouble = rows.iter().find(|row| !row.is_measured());
    let judged = || ok.iter().filter_map(|row| row.contract_held);
    let first = rows[0];
    Line {
        configuration,
        backend: first.backend.clone(),
        driver: rows.iter().find_map(|row| row.driver.clone()),
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
        count_spoilt,
        good: ok
            .into_iter()
            .map(|row| Good {
                run_id: row.run_id.clone(),
                repeat: row.repeat,
                spoilt_by: row.spoilt_by.clone(),
                measures: row.measures.clone(),
            })
            .collect(),
    }
}

impl Line {
    /// A measure in bytes.
    pub fn bytes(&self, of: fn(&Measures) -> Option<u64>) -> Option<Spread> {
        let good = self.counted(Quantity::Memory);
        Spread::of(good.filter_map(|good| Some(of(&good.measures)? as f64)))
    }

    /// A measure in seconds.
    pub fn seconds(&self, of: fn(&Measures) -> Option<f64>) -> Option<Spread> {
        let good = self.counted(Quantity::Time);
        Spread::of(good.filter_map(|good| of(&good.measures)))
    }

    /// Any measure, by its definition.
    pub fn spread(&self, measure: Measure) -> Option<Spread> {
        let good = self.counted(measure.quantity);
        Spread::of(good.filter_map(|good| (measure.of)(&good.measures)))
    }

    /// What the technique promises, where it promises anything.
    pub fn contract(&self, of: fn(&Measures) -> Option<u64>) -> Option<u64> {
        self.good.iter().find_map(|good| of(&good.measures))
    }

    /// The runs that numbers of this kind rest on: those that are not spoilt, or all where there are no others.
    pub fn counted(&self, quantity: Quantity) -> impl Iterator<Item = &Good> {
        let all = self.count_spoilt == Spoilt::Counted || self.is_spoilt(quantity);
        let good = self.good.iter();
        good.filter(move |good| all || !good.is_spoilt(quantity))
    }

    /// Whether all runs are spoilt for numbers of this kind, so that these rest on spoilt ones.
    pub fn is_spoilt(&self, quantity: Quantity) -> bool {
        !self.good.is_empty() && self.good.iter().all(|good| good.is_spoilt(quantity))
    }

    /// The run with the median load time: the one whose timeline and phases are shown.
    pub fn median_run(&self) -> Option<&Good> {
        let counted: Vec<&Good> = self.counted(Quantity::Time).collect();
        counted.get(counted.len().saturating_sub(1) / 2).copied()
    }

    /// What spoilt runs of it for numbers of this kind, each once.
    pub fn spoilt_by(&self, quantity: Quantity) -> Vec<Spoiling> {
        let all = self.good.iter().flat_map(|good| &good.spoilt_by);
        let mut found: Vec<Spoiling> = all
            .copied()
            .filter(|spoiling| spoiling.moves(quantity))
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// A peak as a multiple of the model's bytes.
    pub fn times_model(&self, bytes: f64) -> f64 {
        bytes / self.model_bytes as f64
    }

    /// What it was measured on, as people are told: a driver that runs on the CPU is named.
    pub fn device_name(&self) -> String {
        device_name(&self.configuration.device, self.driver.as_deref())
    }

    /// `naive, software Vulkan: llvmpipe, medium, f32, warm`, with the cap where there is one.
    pub fn label(&self) -> String {
        self.configuration.label(&self.device_name())
    }
}

/// `summary.csv`: medians, minima, maxima, how many runs they rest on, and multiples of the model.
pub fn write_csv(lines: &[Line], path: &Path) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut header: Vec<String> = [
        "device",
        "driver",
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
        "spoilt_for_time",
        "spoilt_for_memory",
        "host_peak_phase",
        "device_peak_phase",
    ]
    .map(str::to_owned)
    .to_vec();
    for measure in measures() {
        let name = measure.name;
        header.extend(["median", "min", "max", "runs"].map(|which| format!("{name}_{which}")));
        if is_peak(measure) {
            header.push(format!("{}_times_model", name.trim_end_matches("_bytes")));
        }
    }
    writer.write_record(&header)?;
    for line in lines {
        let configuration = &line.configuration;
        let cap = configuration.host_cap_bytes.map(|cap| cap.to_string());
        let spoilt = |quantity| {
            let spoilt = line.good.iter().filter(|good| good.is_spoilt(quantity));
            spoilt.count().to_string()
        };
        let phase = |of: fn(&Measures) -> &Option<String>| {
            let run = line.median_run();
            run.and_then(|run| of(&run.measures).clone())
                .unwrap_or_default()
        };
        let mut row = vec![
            escape::csv(&configuration.device),
            escape::csv(line.driver.as_deref().unwrap_or_default()),
            escape::csv(&line.backend),
            escape::csv(&configuration.model),
            escape::csv(&configuration.dtype),
            escape::csv(&configuration.cache),
            cap.unwrap_or_default(),
            escape::csv(configuration.format.as_deref().unwrap_or_default()),
            escape::csv(&configuration.experiment),
            escape::csv(line.framework.as_deref().unwrap_or_default()),
            configuration.tuned.to_string(),
            line.model_bytes.to_string(),
            line.largest_tensor_bytes.to_string(),
            line.runs.to_string(),
            line.ok.to_string(),
            spoilt(Quantity::Time),
            spoilt(Quantity::Memory),
            escape::csv(&phase(|measures| &measures.host_peak_phase)),
            escape::csv(&phase(|measures| &measures.device_peak_phase)),
        ];
        for measure in measures() {
            match line.spread(measure) {
                Some(spread) => {
                    let Spread {
                        median, min, max, ..
                    } = spread;
                    row.extend([median, min, max].map(|value| value.to_string()));
                    row.push(spread.runs.to_string());
                    if is_peak(measure) {
                        row.push(format!("{:.4}", line.times_model(median)));
                    }
                }
                None => row.extend(vec![String::new(); if is_peak(measure) { 5 } else { 4 }]),
            }
        }
        writer.write_record(row)?;
    }
    atomic::write(path, writer.into_inner()?)
}

fn is_peak(measure: Measure) -> bool {
    measure.name.ends_with("_peak_bytes")
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

    fn row(commit: &str, load_seconds: f64, spoilt_by: &[Spoiling]) -> Record {
        Record {
            commit: Some(commit.to_owned()),
            status: Status::Ok,
            verified: true,
            model_bytes: 1,
            spoilt_by: spoilt_by.to_vec(),
            measures: Measures {
                load_seconds: Some(load_seconds),
                host_heap_peak_bytes: Some(load_seconds as u64),
                ..Measures::default()
            }
            .into(),
            ..Record::unmeasured()
        }
    }

    fn line_of(records: &[Record], spoilt: Spoilt) -> Line {
        let mut lines = summarise(records, spoilt);
        assert_eq!(lines.len(), 1);
        lines.remove(0)
    }

    fn load(line: &Line) -> (f64, usize) {
        let spread = line.seconds(|measures| measures.load_seconds).unwrap();
        (spread.median, spread.runs)
    }

    #[test]
    fn spoilt_runs_are_left_out_unless_asked_for_or_nothing_else_is_there() {
        let rows = [
            row("a", 1.0, &[]),
            row("a", 2.0, &[]),
            row("a", 9.0, &[Spoiling::Swap]),
        ];
        assert_eq!(load(&line_of(&rows, Spoilt::LeftOut)), (1.5, 2));
        assert_eq!(load(&line_of(&rows, Spoilt::Counted)), (2.0, 3));
        let alone = line_of(&rows[2..], Spoilt::LeftOut);
        assert_eq!(load(&alone), (9.0, 1));
        assert!(alone.is_spoilt(Quantity::Time) && alone.is_spoilt(Quantity::Memory));
    }

    #[test]
    fn a_run_that_waited_is_left_out_of_times_and_not_of_peaks() {
        let rows = [row("a", 1.0, &[]), row("a", 9.0, &[Spoiling::Disk])];
        let line = line_of(&rows, Spoilt::LeftOut);
        assert_eq!(load(&line), (1.0, 1));
        let heap = line
            .bytes(|measures| measures.host_heap_peak_bytes)
            .unwrap();
        assert_eq!((heap.median, heap.runs), (5.0, 2));
    }

    #[test]
    fn what_older_code_measured_is_not_mixed_with_what_newer_code_did() {
        let rows = [row("a", 1.0, &[]), row("b", 5.0, &[])];
        assert_eq!(load(&line_of(&rows, Spoilt::LeftOut)), (5.0, 1));
    }
}

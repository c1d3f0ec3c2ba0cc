//! `harness compare`: the same configurations of two folders of results, side by side, with a verdict on memory and one on time.

use anyhow::ensure;
use lab::{Measures, Quantity};
use serde::Serialize;

use crate::cli::CompareArgs;
use crate::exit::Ended;
use crate::interval::{DRIFT_SHARE, Interval};
use crate::record::Record;
use crate::results::read_runs;
use crate::sheet::{ABSENT, Sheet, numbers, words};
use crate::summary::{Line, Spoilt, Spread, summarise};
use crate::units;

/// Growth below this is never a regression: alignment, names, a runtime's buffers.
const SLACK_BYTES: f64 = (1 << 20) as f64;

/// How often a comparison of equal results may call any of its times worse or better.
const ERROR: f64 = 0.05;

/// Times within this share of each other are the same to a person.
const SAME_SHARE: f64 = 0.10;

pub fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    let spoilt = Spoilt::counted_if(args.include_spoilt);
    let (old, new) = (read_runs(&args.old)?, read_runs(&args.new)?);
    let mut comparison = Comparison::of(
        &summarise(&old, spoilt),
        &summarise(&new, spoilt),
        args.tolerance,
    );
    comparison.differs = differences(&old, &new);
    ensure!(
        !comparison.rows.is_empty(),
        "{} and {} have no configuration in common: there is nothing to compare",
        args.old.display(),
        args.new.display()
    );
    match args.format.json {
        true => println!("{}", serde_json::to_string_pretty(&comparison)?),
        false => println!("{}", comparison.sheet().terminal()),
    }
    match comparison.worse() {
        (0, 0) => Ok(()),
        (memory, time) => Err(Ended::Regressed { memory, time }.into()),
    }
}

/// A verdict on one kind of number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Better,
    Same,
    Worse,
    Inconclusive,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Same => "same",
            Verdict::Worse => "worse",
            Verdict::Inconclusive => "inconclusive",
        }
    }
}

/// One configuration in both.
#[derive(Debug, Serialize)]
struct Row {
    configuration: String,
    host_heap_peak_bytes: Medians,
    host_rss_peak_bytes: Medians,
    device_in_use_peak_bytes: Medians,
    load_seconds: Medians,
    /// New over old: the interval that the verdict on time rests on.
    load_ratio: Option<Ratio>,
    memory: Verdict,
    time: Verdict,
    /// Why it is worse, where a word is not enough.
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Medians {
    old: Option<f64>,
    new: Option<f64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Ratio {
    centre: f64,
    low: f64,
    high: f64,
    runs: usize,
}

impl From<Interval> for Ratio {
    fn from(interval: Interval) -> Ratio {
        let Interval {
            centre,
            low,
            high,
            runs,
        } = interval;
        Ratio {
            centre,
            low,
            high,
            runs,
        }
    }
}

#[derive(Debug, Serialize)]
struct Comparison {
    /// In what the two differ beside their numbers, in words.
    differs: Vec<String>,
    rows: Vec<Row>,
    /// Of all configurations together.
    load_ratio_of_all: Option<Ratio>,
    time_of_all: Verdict,
    only_in_old: Vec<String>,
    only_in_new: Vec<String>,
}

impl Comparison {
    fn of(old: &[Line], new: &[Line], tolerance_percent: f64) -> Comparison {
        let both: Vec<(&Line, &Line)> = old
            .iter()
            .filter_map(|before| Some((before, find(new, before)?)))
            .collect();
        // Of all the verdicts together one may be wrong that often: each configuration's, and that of all.
        let error = ERROR / (both.len() + 1) as f64;
        let rows: Vec<Row> = both
            .iter()
            .map(|(before, after)| Row::of(before, after, tolerance_percent, error))
            .collect();
        let centres = rows.iter().filter_map(|row| Some(row.load_ratio?.centre));
        let all = Interval::of(&centres.collect::<Vec<f64>>(), error);
        let only = |lines: &[Line], others: &[Line]| {
            let only = lines.iter().filter(|line| find(others, line).is_none());
            only.map(Line::label).collect()
        };
        Comparison {
            differs: Vec::new(),
            load_ratio_of_all: all.map(Ratio::from),
            time_of_all: time_verdict(all),
            only_in_old: only(old, new),
            only_in_new: only(new, old),
            rows,
        }
    }

    /// How many verdicts on memory and on time are that it got worse.
    fn worse(&self) -> (usize, usize) {
        let count = |of: fn(&Row) -> Verdict| {
            let worse = self.rows.iter().filter(|row| of(row) == Verdict::Worse);
            worse.count()
        };
        let all = usize::from(self.time_of_all == Verdict::Worse);
        (count(|row| row.memory), count(|row| row.time).max(all))
    }

    fn sheet(&self) -> Sheet {
        let rows = self.rows.iter().map(|row| {
            let memory = match &row.reason {
                Some(reason) => format!("{}: {reason}", row.memory.word()),
                None => row.memory.word().to_owned(),
            };
            vec![
                row.configuration.clone(),
                peaks(row.host_heap_peak_bytes),
                peaks(row.host_rss_peak_bytes),
                peaks(row.device_in_use_peak_bytes),
                memory,
                row.load_ratio.map_or(ABSENT.to_owned(), show_ratio),
                row.time.word().to_owned(),
            ]
        });
        let mut remarks: Vec<String> = self.differs.clone();
        if let Some(ratio) = self.load_ratio_of_all {
            remarks.push(format!(
                "all times together, new / old: {}: {}",
                show_ratio(ratio),
                self.time_of_all.word()
            ));
        }
        remarks.push(format!(
            "Memory is judged by the medians of exact peaks. A time is worse or better where the interval of its ratio lies \
             beyond {:.0} %, what sessions differ by anyway; the same where it lies within {:.0} %; else inconclusive: \
             more repeats narrow it. Of all verdicts on equal results one in twenty comparisons has one wrong.",
            100.0 * DRIFT_SHARE,
            100.0 * SAME_SHARE
        ));
        let only = |what: &str, labels: &[String]| -> Vec<String> {
            let told = labels.iter();
            told.map(|label| format!("only in the {what} results: {label}"))
                .collect()
        };
        remarks.extend(only("old", &self.only_in_old));
        remarks.extend(only("new", &self.only_in_new));
        Sheet {
            title: "Medians, old → new".to_owned(),
            columns: vec![
                words("configuration"),
                numbers("host heap peak"),
                numbers("host resident peak"),
                numbers("device peak"),
                words("memory"),
                numbers("load, new / old"),
                words("time"),
            ],
            rows: rows.collect(),
            remarks,
        }
    }
}

impl Row {
    fn of(before: &Line, after: &Line, tolerance_percent: f64, error: f64) -> Row {
        let medians = |of: fn(&Measures) -> Option<u64>| Medians {
            old: before.bytes(of).map(|spread| spread.median),
            new: after.bytes(of).map(|spread| spread.median),
        };
        let heap = medians(|measures| measures.host_heap_peak_bytes);
        let device = medians(|measures| measures.device_in_use_peak_bytes);
        let load = |line: &Line| line.seconds(|measures| measures.load_seconds);
        let ratio = load_ratio(before, after, error);
        let broke = before.ok > 0 && after.ok == 0;
        let (memory, reason) = match broke {
            true => {
                let (status, reason) = after.trouble.clone().unzip();
                let status = status.map_or(String::new(), |status| status.to_string());
                let reason = format!("{status}: {}", reason.unwrap_or_default());
                (Verdict::Worse, Some(reason))
            }
            false => {
                // Of commands in other languages only what the kernel counts is known.
                let host = match heap.old.is_some() && heap.new.is_some() {
                    true => ("host heap", heap),
                    false => (
                        "host resident",
                        medians(|measures| measures.host_rss_peak_bytes),
                    ),
                };
                memory_verdict(&[host, ("device", device)], tolerance_percent)
            }
        };
        Row {
            configuration: after.label(),
            host_heap_peak_bytes: heap,
            host_rss_peak_bytes: medians(|measures| measures.host_rss_peak_bytes),
            device_in_use_peak_bytes: device,
            load_seconds: Medians {
                old: load(before).map(|spread: Spread| spread.median),
                new: load(after).map(|spread: Spread| spread.median),
            },
            load_ratio: ratio.map(Ratio::from),
            memory,
            time: time_verdict(ratio),
            reason,
        }
    }
}

fn find<'a>(lines: &'a [Line], wanted: &Line) -> Option<&'a Line> {
    let same = |line: &&Line| line.configuration == wanted.configuration;
    lines.iter().find(same)
}

/// By the peaks of the exact instruments: worse if one grew, better if one shrank and none grew.
fn memory_verdict(peaks: &[(&str, Medians)], tolerance_percent: f64) -> (Verdict, Option<String>) {
    let known = peaks.iter().filter_map(|(name, medians)| {
        let (old, new) = medians.old.zip(medians.new)?;
        let allowed = SLACK_BYTES.max(old * tolerance_percent / 100.0);
        Some((*name, new - old, allowed))
    });
    let known: Vec<_> = known.collect();
    let grown: Vec<&str> = known
        .iter()
        .filter(|(_, growth, allowed)| growth > allowed)
        .map(|(name, ..)| *name)
        .collect();
    let shrunk = known.iter().any(|(_, growth, allowed)| -growth > *allowed);
    match (known.is_empty(), grown.is_empty(), shrunk) {
        (true, ..) => (Verdict::Inconclusive, None),
        (_, false, _) => (Verdict::Worse, Some(grown.join(", "))),
        (_, true, true) => (Verdict::Better, None),
        (_, true, false) => (Verdict::Same, None),
    }
}

/// How many times the load takes as long, by the narrower of two: of all runs, and of pairs of the same repeat, which stood at
/// the same place of their sessions. Each may be wrong half as often.
fn load_ratio(before: &Line, after: &Line, error: f64) -> Option<Interval> {
    let samples = |line: &Line| {
        let counted = line.counted(Quantity::Time);
        let mut samples: Vec<(u32, f64)> = counted
            .filter_map(|good| Some((good.repeat, good.measures.load_seconds?)))
            .collect();
        samples.sort_by_key(|(repeat, _)| *repeat);
        // Two loads never take the same time to the microsecond: a row that stands there twice says nothing new.
        let mut seen: Vec<f64> = Vec::new();
        samples.retain(|(_, seconds)| {
            let is_new = !seen.contains(seconds);
            seen.push(*seconds);
            is_new
        });
        samples
    };
    let (old, new) = (samples(before), samples(after));
    let seconds = |samples: &[(u32, f64)]| -> Vec<f64> {
        samples.iter().map(|(_, seconds)| *seconds).collect()
    };
    let of_all = Interval::of_ratio(&seconds(&old), &seconds(&new), error / 2.0)?;
    let pairs = old.iter().filter_map(|(repeat, seconds)| {
        let (_, other) = new.iter().find(|(other, _)| other == repeat)?;
        Some(other / seconds)
    });
    let pairs: Vec<f64> = pairs.collect();
    match Interval::of(&pairs, error / 2.0).filter(|_| pairs.len() == old.len().min(new.len())) {
        Some(of_pairs) => Some(of_all.or_narrower(of_pairs)),
        None => Some(of_all),
    }
}

fn time_verdict(ratio: Option<Interval>) -> Verdict {
    let Some(ratio) = ratio else {
        return Verdict::Inconclusive;
    };
    let with_drift = ratio.with_drift();
    if with_drift.low > 1.0 {
        Verdict::Worse
    } else if with_drift.high < 1.0 {
        Verdict::Better
    } else if ratio.high <= 1.0 + SAME_SHARE && ratio.low >= 1.0 / (1.0 + SAME_SHARE) {
        Verdict::Same
    } else {
        Verdict::Inconclusive
    }
}

/// What is not the same beside the numbers: a time of another machine says nothing of the code.
fn differences(old: &[Record], new: &[Record]) -> Vec<String> {
    let all = |records: &[Record], of: fn(&Record) -> String| {
        let mut values: Vec<String> = records.iter().map(of).collect();
        values.sort();
        values.dedup();
        values.join(", ")
    };
    type Kind = (&'static str, fn(&Record) -> String);
    let kinds: [Kind; 4] = [
        ("machine", |record| record.machine.clone()),
        ("commit", |record| {
            record
                .commit
                .clone()
                .unwrap_or_else(|| "unknown".to_owned())
        }),
        ("manifest", |record| record.manifest.clone()),
        ("the manifest's text (SHA-256)", |record| {
            record.manifest_sha256.chars().take(12).collect()
        }),
    ];
    let told = kinds.iter().filter_map(|(what, of)| {
        let (before, after) = (all(old, *of), all(new, *of));
        (before != after).then(|| format!("{what} differs: {before} → {after}"))
    });
    told.collect()
}

/// `1.51 GiB → 1.52 GiB (+0.4 %)`
fn peaks(medians: Medians) -> String {
    let shown = |bytes: Option<f64>| match bytes {
        Some(bytes) => units::bytes(bytes as u64),
        None => ABSENT.to_owned(),
    };
    let Medians { old, new } = medians;
    let grown = old.zip(new).filter(|(old, _)| *old > 0.0);
    let grown = grown.map(|(old, new)| 100.0 * (new / old - 1.0));
    let grown = grown.map_or(String::new(), |percent| format!(" ({percent:+.1} %)"));
    match (old, new) {
        (None, None) => ABSENT.to_owned(),
        _ => format!("{} → {}{grown}", shown(old), shown(new)),
    }
}

/// `0.97 (0.91 to 1.10, n = 3)`
fn show_ratio(ratio: Ratio) -> String {
    let Ratio {
        centre,
        low,
        high,
        runs,
    } = ratio;
    format!("{centre:.2} ({low:.2} to {high:.2}, n = {runs})")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lab::Status;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn row(experiment: &str, repeat: u32, heap_bytes: u64, load_seconds: f64) -> Record {
        Record {
            experiment: experiment.to_owned(),
            repeat,
            model_bytes: GIB,
            status: Status::Ok,
            verified: true,
            measures: Measures {
                host_heap_peak_bytes: Some(heap_bytes),
                load_seconds: Some(load_seconds),
                ..Measures::default()
            }
            .into(),
            ..Record::unmeasured()
        }
    }

    fn lines(rows: &[Record]) -> Vec<Line> {
        summarise(rows, Spoilt::LeftOut)
    }

    fn of_memory(heap_bytes: u64) -> Vec<Line> {
        lines(&[row("naive", 1, heap_bytes, 1.0)])
    }

    #[test]
    fn memory_that_grew_beyond_the_tolerance_is_worse_and_what_shrank_is_better() {
        let old = of_memory(GIB);
        let verdict = |new: u64| Comparison::of(&old, &of_memory(new), 1.0).rows[0].memory;
        assert_eq!(verdict(GIB + (10 << 20)), Verdict::Same);
        assert_eq!(verdict(GIB + (11 << 20)), Verdict::Worse);
        assert_eq!(verdict(1 << 20), Verdict::Better);
        // A little of nothing much is no regression.
        let small = Comparison::of(&of_memory(1000), &of_memory(900_000), 1.0);
        assert_eq!(small.rows[0].memory, Verdict::Same);
    }

    #[test]
    fn a_run_that_no_longer_ends_well_is_worse_and_says_why() {
        let old = of_memory(GIB);
        let failed = Record {
            status: Status::Oom,
            reason: Some("too large".to_owned()),
            verified: false,
            ..row("naive", 1, GIB, 1.0)
        };
        let comparison = Comparison::of(&old, &lines(&[failed]), 1.0);
        assert_eq!(comparison.worse().0, 1);
        let shown = comparison.sheet().terminal();
        assert!(shown.contains("worse: oom: too large"), "{shown}");
    }

    /// Rows of many techniques, whose times scatter by a fifth and more.
    fn scattered(random: &mut fastrand::Rng) -> Vec<Record> {
        let techniques = (0..30).map(|number| (format!("technique-{number}"), 0.1 + random.f64()));
        let techniques: Vec<(String, f64)> = techniques.collect();
        let mut rows = Vec::new();
        for repeat in 1..=3 {
            for (name, seconds) in &techniques {
                let noise = (0.4 * (random.f64() + random.f64() - 1.0)).exp();
                rows.push(row(name, repeat, GIB, seconds * noise));
            }
        }
        rows
    }

    #[test]
    fn rows_of_the_same_distribution_are_worse_in_five_of_a_hundred_comparisons_at_most() {
        let mut random = fastrand::Rng::with_seed(11);
        let old = scattered(&mut random);
        let mut found = 0;
        for _ in 0..100 {
            let mut new = old.clone();
            for row in &mut new {
                let of_same: Vec<&Record> = old
                    .iter()
                    .filter(|other| other.experiment == row.experiment)
                    .collect();
                let drawn = of_same[random.usize(..of_same.len())];
                Arc::make_mut(&mut row.measures).load_seconds = drawn.measures.load_seconds;
            }
            let comparison = Comparison::of(&lines(&old), &lines(&new), 1.0);
            found += usize::from(comparison.worse() != (0, 0));
        }
        assert!(found <= 5, "{found} of 100");
    }

    #[test]
    fn rows_that_take_twice_as_long_are_worse_each_of_them() {
        let old = scattered(&mut fastrand::Rng::with_seed(12));
        let mut new = old.clone();
        for row in &mut new {
            Arc::make_mut(&mut row.measures).load_seconds =
                row.measures.load_seconds.map(|seconds| 2.0 * seconds);
        }
        let comparison = Comparison::of(&lines(&old), &lines(&new), 1.0);
        assert_eq!(comparison.worse(), (0, 30));
        assert_eq!(comparison.time_of_all, Verdict::Worse);
        let back = Comparison::of(&lines(&new), &lines(&old), 1.0);
        assert!(back.rows.iter().all(|row| row.time == Verdict::Better));
    }

    #[test]
    fn one_run_of_each_decides_nothing_about_time() {
        let (old, new) = (row("naive", 1, GIB, 1.0), row("naive", 1, GIB, 9.0));
        let comparison = Comparison::of(&lines(&[old]), &lines(&[new]), 1.0);
        assert_eq!(comparison.rows[0].time, Verdict::Inconclusive);
    }

    #[test]
    fn another_machine_commit_or_manifest_is_told() {
        let here = row("naive", 1, GIB, 1.0);
        let there = Record {
            machine: "box".to_owned(),
            commit: Some("abc".to_owned()),
            manifest: "quick".to_owned(),
            manifest_sha256: "0123".to_owned(),
            ..here.clone()
        };
        let told = differences(std::slice::from_ref(&here), &[there]);
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told[0].contains("machine differs") && told[0].contains("box"));
        assert!(differences(std::slice::from_ref(&here), std::slice::from_ref(&here)).is_empty());
    }
}

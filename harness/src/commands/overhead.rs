//! `harness overhead`: what measuring costs. The same loads with every instrument and with a clock alone, in turn,
//! each in a fresh process.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use checkpoint::{Dtype, Format};
use gpt2::layout::Reading;
use indicatif::{ProgressBar, ProgressStyle};
use lab::{Reads, Tuning};
use meter::{CacheState, HostCaps};
use serde::{Deserialize, Serialize};

use crate::checkout::{self, RUNS};
use crate::checkpoints::Store;
use crate::cli::OverheadArgs;
use crate::executor::Executor;
use crate::exit::Ended;
use crate::machine::{self, Machine};
use crate::manifest::{experiment_names, unknown_experiment};
use crate::sheet::{Sheet, numbers, words};
use crate::summary::Spread;
use crate::supply::reference;
use crate::worker::Specification;
use crate::{atomic, interrupt, registry, units};

/// What a load may take.
const LIMIT_SECONDS: u64 = 600;

/// Two loads right behind each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pair {
    commit: Option<String>,
    experiment: String,
    model: String,
    device: String,
    pair: u64,
    clock_alone_seconds: f64,
    measured_seconds: f64,
}

pub fn overhead(args: &OverheadArgs) -> anyhow::Result<()> {
    interrupt::watch()?;
    let store = Store::new(args.store.checkpoints.clone());
    let caps = HostCaps::detect();
    let machine = Machine::detect(None, &lab::find_devices(), store.root(), &caps);
    let out = args.out.clone().unwrap_or_else(|| {
        let folder = checkout::folder(RUNS).join(&machine.machine);
        folder.join("overhead.csv")
    });
    refuse_foreign(&out)?;
    let executor = Executor::new(LIMIT_SECONDS, caps)?;
    let bar = ProgressBar::new(args.pairs * args.only.len() as u64);
    let style = "{bar:24} {pos}/{len} pairs {elapsed_precise}";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
    let mut pairs = Vec::new();
    for name in &args.only {
        let of_technique = specification(name, args, &store)?;
        for pair in 0..=args.pairs {
            let timed = |only_time| {
                let run = Specification {
                    only_time,
                    ..of_technique.clone()
                };
                seconds(&executor, run)
            };
            // Who comes first has an advantage or the opposite: in turn.
            let (clock_alone_seconds, measured_seconds) = match pair % 2 {
                0 => (timed(true)?, timed(false)?),
                _ => {
                    let measured = timed(false)?;
                    (timed(true)?, measured)
                }
            };
            if pair == 0 {
                // The first pair warms the machine up.
                continue;
            }
            pairs.push(Pair {
                commit: machine::code().commit,
                experiment: name.clone(),
                model: args.size.to_string(),
                device: args.device.to_string(),
                pair,
                clock_alone_seconds,
                measured_seconds,
            });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    write(&pairs, &out)?;
    println!("{}", sheet(&pairs).terminal());
    println!("pairs: {}", out.display());
    Ok(())
}

/// A pair has some fifty letters.
const MAX_PAIRS_BYTES: u64 = 16 << 20;

/// A recorded measurement as a table, for the README.
pub fn markdown(path: &Path) -> anyhow::Result<String> {
    Ok(sheet(&read(path)?).markdown())
}

fn read(path: &Path) -> anyhow::Result<Vec<Pair>> {
    let text = checkpoint::read_whole(path, MAX_PAIRS_BYTES)?;
    let rows = csv::Reader::from_reader(&text[..]).into_deserialize();
    let pairs: Result<Vec<Pair>, _> = rows.collect();
    pairs.with_context(|| path.display().to_string())
}

/// That what is there, if anything, is an earlier measurement: it is replaced.
fn refuse_foreign(path: &Path) -> Result<(), Ended> {
    let is_there = path.symlink_metadata().is_ok();
    let is_ours = || path.is_file() && read(path).is_ok_and(|pairs| !pairs.is_empty());
    match is_there && !is_ours() {
        true => Err(Ended::Usage(format!(
            "--out {}: is there, and no file of pairs: choose another name",
            path.display()
        ))),
        false => Ok(()),
    }
}

fn specification(name: &str, args: &OverheadArgs, store: &Store) -> anyhow::Result<Specification> {
    let Some(experiment) = registry::find(name) else {
        return Err(Ended::Usage(unknown_experiment(name, experiment_names())).into());
    };
    lab::check_comparable(&args.size.config()).with_context(|| args.size.to_string())?;
    let ready = store.prepared(args.size, Dtype::F32);
    let format = match experiment.reads {
        Reads::Only(format) => format,
        Reads::StateDict | Reads::Nothing => Format::Safetensors,
    };
    store.prepare(&ready, format)?;
    let reference = reference(&ready, format, Duration::from_secs(LIMIT_SECONDS))
        .map_err(anyhow::Error::msg)?;
    Ok(Specification {
        experiment: name.to_owned(),
        size: args.size,
        device: args.device,
        dtype: Dtype::F32,
        tuning: Tuning::default(),
        cache: CacheState::Warm,
        checkpoint: Some(ready.path(format)),
        reading: Reading::default(),
        digests: Some(ready.sidecar()),
        reference: Some(reference),
        is_reference_given: false,
        save_logits: None,
        forward_in_software: false,
        host_cap_bytes: None,
        cgroup: None,
        last_words: None,
        only_time: false,
    })
}

fn seconds(executor: &Executor, run: Specification) -> anyhow::Result<f64> {
    let Some(outcome) = executor.outcome(run)? else {
        bail!("interrupted");
    };
    match outcome.measures.load_seconds.filter(|_| outcome.verified) {
        Some(seconds) => Ok(seconds),
        None => bail!("a load failed: {}", outcome.reason.unwrap_or_default()),
    }
}

fn write(pairs: &[Pair], path: &Path) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for pair in pairs {
        writer.serialize(pair)?;
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    atomic::write(path, writer.into_inner()?)
}

fn sheet(pairs: &[Pair]) -> Sheet {
    let mut techniques: Vec<&str> = pairs.iter().map(|pair| &*pair.experiment).collect();
    techniques.dedup();
    let rows = techniques.iter().map(|name| {
        let own = || pairs.iter().filter(|pair| pair.experiment == *name);
        let spread =
            |value: fn(&Pair) -> f64| Spread::of(own().map(value)).expect("a technique has a pair");
        let clock = spread(|pair| pair.clock_alone_seconds);
        let measured = spread(|pair| pair.measured_seconds);
        let ratio = spread(|pair| pair.measured_seconds / pair.clock_alone_seconds);
        vec![
            (*name).to_owned(),
            own().count().to_string(),
            units::seconds(clock.median),
            units::seconds(measured.median),
            percent(ratio.median),
            middle_half(own().map(|pair| pair.measured_seconds / pair.clock_alone_seconds)),
            percent(
                fastest_quarter(own().map(|pair| pair.measured_seconds))
                    / fastest_quarter(own().map(|pair| pair.clock_alone_seconds)),
            ),
        ]
    });
    let first = pairs.first();
    Sheet {
        title: first.map_or(String::new(), |pair| {
            format!(
                "What measuring costs: {}, {}, warm cache",
                pair.device, pair.model
            )
        }),
        columns: vec![
            words("technique"),
            numbers("pairs"),
            numbers("load, clock alone"),
            numbers("load, measured"),
            numbers("median of the pairs' ratios"),
            numbers("their middle half"),
            numbers("fastest quarters"),
        ],
        rows: rows.collect(),
        remarks: Vec::new(),
    }
}

/// `+1.5 %` for a ratio of 1.015.
fn percent(ratio: f64) -> String {
    format!("{:+.1} %", 100.0 * (ratio - 1.0))
}

/// The mean of the fastest quarter: what else happens on a machine makes loads slower, and never faster.
fn fastest_quarter(seconds: impl Iterator<Item = f64>) -> f64 {
    let mut seconds: Vec<f64> = seconds.collect();
    seconds.sort_by(f64::total_cmp);
    seconds.truncate(seconds.len().div_ceil(4));
    seconds.iter().sum::<f64>() / seconds.len() as f64
}

/// How far the machine's noise spreads what is found: from the lower to the upper quartile.
fn middle_half(ratios: impl Iterator<Item = f64>) -> String {
    let mut ratios: Vec<f64> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    let quartile = ratios.len() / 4;
    let (lower, upper) = (ratios[quartile], ratios[ratios.len() - 1 - quartile]);
    format!("{} to {}", percent(lower), percent(upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_that_of_pairs_and_is_read_as_it_is_written() {
        let pair = |pair, clock_alone_seconds, measured_seconds| Pair {
            commit: None,
            experiment: "naive".to_owned(),
            model: "medium".to_owned(),
            device: "flex".to_owned(),
            pair,
            clock_alone_seconds,
            measured_seconds,
        };
        let pairs = [pair(1, 1.0, 1.01), pair(2, 2.0, 2.04), pair(3, 4.0, 4.0)];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/overhead.csv");
        write(&pairs, &path).unwrap();
        let table = markdown(&path).unwrap();
        assert!(
            table.contains("| naive | 3 | 2.00 s | 2.04 s | +1.0 % | +0.0 % to +2.0 % | +1.0 % |"),
            "{table}"
        );
        assert!(refuse_foreign(&path).is_ok());
    }

    #[test]
    fn a_file_that_is_no_earlier_measurement_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.csv");
        assert!(refuse_foreign(&path).is_ok());
        for text in ["", "mine\n", "a,b\n1,2\n"] {
            std::fs::write(&path, text).unwrap();
            let said = refuse_foreign(&path).unwrap_err().to_string();
            assert!(said.contains("mine.csv"), "{said}");
        }
        assert!(refuse_foreign(folder.path()).is_err());
    }
}

//! The techniques in a situation, and their order.

use std::cmp::Ordering;

use checkpoint::Format;
use lab::{Footprint, Kept, MemoryModel, Reads, Registered, Tuning};
use serde::Serialize;

use super::situation::Situation;
use super::times::{Runs, Times, told};
use crate::record::Record;
use crate::summary::by_configuration;
use crate::{checkpoints, registry, smallest_cap};

/// A technique in a situation.
#[derive(Debug, Clone, Serialize)]
pub struct Choice {
    pub technique: &'static str,
    pub fits: bool,
    /// Whether the weights are the checkpoint's, to the bit.
    pub is_exact: bool,
    /// Where the model lives once it is loaded.
    pub home: Home,
    /// What it needs on the host: the smallest cap that it was found to survive in, or what it promises.
    pub host_bytes: u64,
    pub is_host_measured: bool,
    /// What it promises to need on the device.
    pub device_bytes: Option<u64>,
    pub times: Times,
    pub logits_error: Option<f64>,
}

/// Where a model lives, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Home {
    /// In memory of its own.
    OwnMemory,
    /// In the pages of the file.
    FilePages,
    /// In the file, but for a few layers: each forward reads it.
    File,
}

/// Every technique that makes sense here: those that fit first; of them those that hold the model before one that reads it
/// again for each forward, exact ones before others, the fastest first. `records` are of one machine and device.
pub fn choices(situation: &Situation, records: &[Record]) -> Vec<Choice> {
    let uncapped = by_configuration(records)
        .into_iter()
        .filter(|(configuration, _)| configuration.host_cap_bytes.is_none());
    let runs: Vec<Runs<'_>> = uncapped
        .filter_map(|(configuration, rows)| Runs::of(configuration, &rows))
        .collect();
    let caps = smallest_cap::found(records);
    let experiments = registry::techniques()
        .filter(|experiment| experiment.reads != Reads::Nothing)
        .filter(|experiment| {
            experiment
                .applies(situation.memory, situation.dtype)
                .is_ok()
        });
    let mut choices: Vec<Choice> = experiments
        .map(|experiment| choice(situation, experiment, &runs, &caps))
        .collect();
    // Like is compared with like: where forward was not timed for all, the load alone is.
    let mut timed = choices
        .iter()
        .filter(|choice| choice.times.load().is_some());
    if !timed.all(|choice| choice.times.ready().is_some()) {
        for choice in &mut choices {
            if let Times::Measured { ready, .. } = &mut choice.times {
                *ready = None;
            }
        }
    }
    choices.sort_by(|a, b| {
        let order = b.fits.cmp(&a.fits);
        let order = order.then((a.home == Home::File).cmp(&(b.home == Home::File)));
        let order = order.then(b.is_exact.cmp(&a.is_exact));
        order
            .then(a.seconds().total_cmp(&b.seconds()))
            .then(a.host_bytes.cmp(&b.host_bytes))
    });
    choices
}

fn choice(
    situation: &Situation,
    experiment: &'static Registered,
    runs: &[Runs<'_>],
    caps: &[smallest_cap::Found],
) -> Choice {
    let config = situation.size.config();
    let footprint = Footprint::new(&config, situation.dtype, None, Tuning::default());
    let footprint = match situation.device {
        Some(device) => footprint.on(device.backend),
        None => footprint,
    };
    let contract = (experiment.contract)(situation.memory, footprint);
    let survived = caps
        .iter()
        .filter(|found| found.configuration.experiment == experiment.name)
        .find_map(smallest_cap::Found::smallest_bytes)
        .filter(|_| situation.memory == MemoryModel::Unified);
    let host_bytes = survived.unwrap_or(contract.host_heap_bytes);
    let device_bytes = contract.device_bytes;
    // A software device's memory is the host's.
    let in_ram = host_bytes + device_bytes.filter(|_| situation.is_software).unwrap_or(0);
    let has = |needed: u64, there: Option<u64>| there.is_none_or(|there| needed <= there);
    let is_exact = experiment.keeps(situation.memory, situation.dtype) == Kept::Stored;
    // Who promises to hold no model where the model is, holds the file's.
    let holds_none = is_exact
        && situation.memory == MemoryModel::Unified
        && contract.host_heap_bytes < footprint.model_bytes / 2;
    let format = match experiment.reads {
        Reads::Only(format) => format,
        Reads::StateDict | Reads::Nothing => Format::Safetensors,
    };
    // The kernel keeps the file beside what the technique holds, or the load is not warm.
    let file_bytes = format.disk_bytes(&checkpoints::metas(&config, situation.dtype));
    let own: Vec<&Runs<'_>> = runs
        .iter()
        .filter(|runs| runs.experiment == experiment.name)
        .collect();
    let (times, logits_error) = told(&own, has(in_ram + file_bytes, situation.host_bytes));
    Choice {
        technique: experiment.name,
        fits: has(in_ram, situation.host_bytes)
            && has(device_bytes.unwrap_or(0), situation.device_bytes),
        is_exact,
        home: match (experiment.streams_layers, holds_none) {
            (true, _) => Home::File,
            (false, true) => Home::FilePages,
            (false, false) => Home::OwnMemory,
        },
        host_bytes,
        is_host_measured: survived.is_some(),
        device_bytes,
        times,
        logits_error,
    }
}

impl Choice {
    /// What a person waits for: load and first forward, where both were measured. What was not measured comes last.
    fn seconds(&self) -> f64 {
        let timing = self.times.ready().or(self.times.load());
        timing.map_or(f64::INFINITY, |timing| timing.median_seconds)
    }

    /// Whether another is as good in everything and better in something.
    fn is_beaten_by(&self, other: &Choice) -> bool {
        let costs = |choice: &Choice| {
            let device_bytes = choice.device_bytes.unwrap_or(0);
            [
                choice.seconds(),
                choice.host_bytes as f64,
                device_bytes as f64,
            ]
        };
        let (own, others) = (costs(self), costs(other));
        let is_as_good = other.is_exact >= self.is_exact && other.home <= self.home;
        let compared: Vec<Ordering> = own
            .iter()
            .zip(&others)
            .map(|(own, other)| other.total_cmp(own))
            .collect();
        is_as_good && !compared.contains(&Ordering::Greater) && compared.contains(&Ordering::Less)
    }
}

/// Of these choices, in their order, those that were timed and that no other beats in time, host and device memory at once.
pub fn unbeaten(choices: &[Choice]) -> Vec<Choice> {
    let timed = || {
        choices
            .iter()
            .filter(|choice| choice.times.load().is_some())
    };
    let unbeaten = timed().filter(|choice| !timed().any(|other| choice.is_beaten_by(other)));
    unbeaten.cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use checkpoint::Dtype;
    use gpt2::Size;
    use lab::{Measures, Spoiling, Status};

    use super::super::sheet;
    use super::*;

    fn situation(memory: MemoryModel, host_bytes: u64, device_bytes: u64) -> Situation {
        Situation {
            size: Size::Xl,
            dtype: Dtype::F32,
            memory,
            device: None,
            is_software: false,
            host_bytes: Some(host_bytes),
            device_bytes: Some(device_bytes),
        }
    }

    fn fitting(situation: &Situation) -> Vec<&'static str> {
        let choices = choices(situation, &[]).into_iter();
        choices
            .filter(|choice| choice.fits)
            .map(|choice| choice.technique)
            .collect()
    }

    fn record(experiment: &str, cache: &str, load_seconds: f64) -> Record {
        Record {
            experiment: experiment.to_owned(),
            model: "xl".to_owned(),
            dtype: "f32".to_owned(),
            memory_model: "unified".to_owned(),
            cache: cache.to_owned(),
            status: Status::Ok,
            verified: true,
            measures: Measures {
                load_seconds: Some(load_seconds),
                ..Measures::default()
            }
            .into(),
            ..Record::unmeasured()
        }
    }

    /// What is told of one technique.
    fn of(technique: &str, situation: &Situation, records: &[Record]) -> Choice {
        let mut choices = choices(situation, records).into_iter();
        choices
            .find(|choice| choice.technique == technique)
            .unwrap()
    }

    fn cache_and_median(choice: &Choice) -> Option<(&str, f64)> {
        match &choice.times {
            Times::Measured { cache, load, .. } => Some((cache, load.median_seconds)),
            _ => None,
        }
    }

    #[test]
    fn what_is_scarce_decides_what_fits() {
        let on_device = |host, device| fitting(&situation(MemoryModel::Discrete, host, device));
        let little_host = on_device(512 << 20, 8 << 30);
        assert!(little_host.contains(&"streamed") && !little_host.contains(&"sequential"));
        let plenty = on_device(16 << 30, 16 << 30);
        assert!(plenty.contains(&"naive") && plenty.contains(&"sequential"));
        let little_device = on_device(512 << 20, 2 << 30);
        assert!(little_device.contains(&"layer-offload") && !little_device.contains(&"streamed"));
        assert!(on_device(1 << 20, 1 << 20).is_empty());
    }

    #[test]
    fn the_memory_of_a_software_device_is_the_hosts() {
        let gpu = situation(MemoryModel::Discrete, 2 << 30, 16 << 30);
        assert!(fitting(&gpu).contains(&"streamed"));
        let software = Situation {
            is_software: true,
            ..gpu
        };
        assert!(!fitting(&software).contains(&"streamed"));
    }

    #[test]
    fn of_what_fits_the_fastest_that_keeps_the_weights_comes_first() {
        let situation = situation(MemoryModel::Unified, 64 << 30, 0);
        let records = [
            record("naive", "warm", 9.0),
            record("streamed", "warm", 3.0),
            record("half", "warm", 1.0),
            record("layer-offload", "warm", 0.1),
        ];
        let choices = choices(&situation, &records);
        let names: Vec<_> = choices.iter().map(|choice| choice.technique).collect();
        assert_eq!(names[..2], ["streamed", "naive"]);
        assert_eq!(names.last(), Some(&"layer-offload"));
    }

    #[test]
    fn the_guide_has_the_order_of_the_advice_without_what_is_beaten() {
        let situation = situation(MemoryModel::Unified, 64 << 30, 0);
        let records = [
            record("naive", "warm", 9.0),
            record("layer-offload", "warm", 0.1),
            record("half", "warm", 1.0),
            record("streamed", "warm", 3.0),
        ];
        let guide = unbeaten(&choices(&situation, &records));
        let names: Vec<_> = guide.iter().map(|choice| choice.technique).collect();
        assert_eq!(
            names,
            ["streamed", "half", "layer-offload"],
            "naive is beaten in everything, and the last is for where nothing else fits"
        );
        let sheet = sheet::sheet(String::new(), &guide);
        let last = sheet.rows.last().unwrap();
        assert!(
            last.last().unwrap().contains("nothing else fits"),
            "{last:?}"
        );
    }

    #[test]
    fn a_warm_time_is_told_where_the_memory_holds_the_file_beside_the_model_only() {
        let warm = [record("streamed", "warm", 1.0)];
        let both = [
            record("streamed", "warm", 1.0),
            record("streamed", "cold", 7.0),
        ];
        let plenty = situation(MemoryModel::Unified, 16 << 30, 0);
        let little = situation(MemoryModel::Unified, 8 << 30, 0);
        let told = |situation, records| {
            let choice = of("streamed", situation, records);
            assert!(choice.fits);
            cache_and_median(&choice).map(|(cache, median)| (cache.to_owned(), median))
        };
        assert_eq!(told(&plenty, &both), Some(("warm".to_owned(), 1.0)));
        assert_eq!(told(&little, &both), Some(("cold".to_owned(), 7.0)));
        assert_eq!(told(&little, &warm), None);
        let choice = of("streamed", &little, &warm);
        assert_eq!(choice.times, Times::NotMeasuredCold);
        let row = &sheet::sheet(String::new(), &[choice]).rows[0];
        assert!(row.contains(&"not measured cold".to_owned()), "{row:?}");
        // The mapped file is the model: its pages count, though the technique holds next to nothing.
        let mapped = [record("mmap-zero-copy", "warm", 0.1)];
        let little = situation(MemoryModel::Unified, 4 << 30, 0);
        let choice = of("mmap-zero-copy", &little, &mapped);
        assert!(choice.fits && choice.times == Times::NotMeasuredCold);
        assert_eq!(
            of("mmap-assign", &little, &mapped).times,
            Times::NotMeasured
        );
    }

    #[test]
    fn a_time_says_how_many_runs_it_rests_on_and_how_far_they_are_apart() {
        let plenty = situation(MemoryModel::Unified, 64 << 30, 0);
        let seconds = [0.719, 0.7, 0.91];
        let mut records: Vec<Record> = seconds
            .into_iter()
            .map(|seconds| record("streamed", "warm", seconds))
            .collect();
        let told = |records: &[Record]| {
            let choice = of("streamed", &plenty, records);
            choice.times.load().unwrap().to_string()
        };
        assert_eq!(told(&records), "0.719 s (0.700 to 0.910, n = 3)");
        records[2].spoilt_by = vec![Spoiling::Swap];
        assert!(told(&records).ends_with("n = 2)"), "{}", told(&records));
        assert_eq!(told(&records[2..]), "0.910 s (n = 1, may be spoilt)");
        // The forward was timed once only.
        Arc::make_mut(&mut records[0].measures).first_forward_seconds = Some(1.0);
        let choice = of("streamed", &plenty, &records);
        assert_eq!(choice.times.ready().unwrap().runs, 1);
    }
}

//! Which technique fits into the memory that is there, and is fastest: from the memory contracts, and from what is recorded.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use checkpoint::Dtype;
use gpt2::Size;
use lab::{Footprint, Kept, MemoryModel, Reads, Registered, Tuning};

use crate::record::Record;
use crate::registry;
use crate::sheet::{ABSENT, Sheet, numbers, words};
use crate::smallest_cap;
use crate::summary::{Line, Spoilt, summarise};
use crate::units;

/// What somebody has, and wants to load.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    pub size: Size,
    pub dtype: Dtype,
    pub memory: MemoryModel,
    /// What is free of the host's memory.
    pub host_bytes: Option<u64>,
    /// What is free of the device's.
    pub device_bytes: Option<u64>,
}

/// A technique in a situation.
#[derive(Debug, Clone)]
pub struct Choice {
    pub name: &'static str,
    /// Whether the weights are the checkpoint's, to the bit.
    pub is_exact: bool,
    /// Where the model lives once it is loaded.
    pub home: Home,
    /// What it needs on the host: the smallest cap that it was found to survive in, or what it promises.
    pub host_bytes: u64,
    pub is_host_measured: bool,
    /// What it promises to need on the device.
    pub device_bytes: Option<u64>,
    /// Recorded medians, of that size.
    pub load_seconds: Option<f64>,
    pub ready_seconds: Option<f64>,
    pub logits_error: Option<f64>,
    pub fits: bool,
}

/// Where a model lives, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Home {
    /// In memory of its own.
    OwnMemory,
    /// In the pages of the file.
    FilePages,
    /// In the file, but for a few layers: each forward reads it.
    File,
}

/// What is recorded of this size and kind of memory on every machine below `root`.
pub fn recorded(root: &Path, situation: &Situation) -> Vec<Record> {
    let machines = subfolders(root).into_iter();
    machines
        .flat_map(|machine| recorded_on(&machine, situation))
        .collect()
}

/// What is recorded of this size and kind of memory in the folders of one machine.
pub fn recorded_on(machine: &Path, situation: &Situation) -> Vec<Record> {
    let folders = subfolders(machine).into_iter();
    let records = folders.filter_map(|folder| crate::results::read_runs(&folder).ok());
    let mut records: Vec<Record> = records.flatten().collect();
    records.retain(|record| situation.is_of(record));
    // Of several manifests that hold the same configuration the newest rows count.
    records.sort_by(|a, b| a.started_at.cmp(&b.started_at));
    records
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries.map(|entry| entry.path()).collect();
    folders.sort();
    folders
}

impl Situation {
    fn is_of(&self, record: &Record) -> bool {
        record.model == self.size.to_string()
            && record.dtype == self.dtype.to_string()
            && record.memory_model == self.memory.name()
    }

    /// Every technique that makes sense here: those that fit first, exact ones before others, the fastest first.
    pub fn choices(&self, records: &[Record]) -> Vec<Choice> {
        let lines: Vec<Line> = summarise(records, Spoilt::LeftOut)
            .into_iter()
            .filter(|line| line.configuration.host_cap_bytes.is_none() && line.ok > 0)
            .collect();
        let caps = smallest_cap::found(records);
        let experiments = registry::techniques()
            .filter(|experiment| experiment.reads != Reads::Nothing)
            .filter(|experiment| experiment.applies(self.memory, self.dtype).is_ok());
        let mut choices: Vec<Choice> = experiments
            .map(|experiment| self.choice(experiment, &lines, &caps))
            .collect();
        // Like is compared with like: where forward was not timed for all, the load alone is.
        let mut timed = choices
            .iter()
            .filter(|choice| choice.load_seconds.is_some());
        if !timed.all(|choice| choice.ready_seconds.is_some()) {
            choices
                .iter_mut()
                .for_each(|choice| choice.ready_seconds = None);
        }
        choices.sort_by(|a, b| {
            let order = b.fits.cmp(&a.fits).then(b.is_exact.cmp(&a.is_exact));
            // What is read again for each forward is for where nothing else fits.
            let order = order.then((a.home == Home::File).cmp(&(b.home == Home::File)));
            order
                .then(a.compare_speed(b))
                .then(a.host_bytes.cmp(&b.host_bytes))
        });
        choices
    }

    fn choice(
        &self,
        experiment: &'static Registered,
        lines: &[Line],
        caps: &[smallest_cap::Found],
    ) -> Choice {
        let footprint = Footprint::new(&self.size.config(), self.dtype, None, Tuning::default());
        let contract = (experiment.contract)(self.memory, footprint);
        // Warm before cold, for that is what is mostly measured: one kind for all.
        let line = lines.iter().find(|line| {
            line.configuration.experiment == experiment.name && line.configuration.cache == "warm"
        });
        let survived = caps
            .iter()
            .filter(|found| found.configuration.experiment == experiment.name)
            .find_map(smallest_cap::Found::smallest_bytes)
            .filter(|_| self.memory == MemoryModel::Unified);
        let host_bytes = survived.unwrap_or(contract.host_heap_bytes);
        let has = |needed: u64, there: Option<u64>| there.is_none_or(|there| needed <= there);
        let is_exact = experiment.keeps(self.memory, self.dtype) == Kept::Stored;
        // Who promises to hold no model where the model is, holds the file's.
        let holds_none = is_exact
            && self.memory == MemoryModel::Unified
            && contract.host_heap_bytes < footprint.model_bytes / 2;
        Choice {
            name: experiment.name,
            is_exact,
            home: match (experiment.streams_layers, holds_none) {
                (true, _) => Home::File,
                (false, true) => Home::FilePages,
                (false, false) => Home::OwnMemory,
            },
            host_bytes,
            is_host_measured: survived.is_some(),
            device_bytes: contract.device_bytes,
            load_seconds: line
                .and_then(|line| line.load_seconds)
                .map(|spread| spread.median),
            ready_seconds: line
                .and_then(|line| line.ready_seconds)
                .map(|spread| spread.median),
            logits_error: line
                .and_then(|line| line.logits_error)
                .map(|spread| spread.median),
            fits: has(host_bytes, self.host_bytes)
                && has(contract.device_bytes.unwrap_or(0), self.device_bytes),
        }
    }

    /// `xl (6.10 GiB, f32) into the host's memory`
    pub fn title(&self) -> String {
        let config = self.size.config();
        let bytes = units::bytes(config.parameters() * self.dtype.bytes());
        let place = match self.memory {
            MemoryModel::Unified => "into the host's memory (flex)",
            MemoryModel::Discrete => "to a device with memory of its own",
        };
        format!("{} ({bytes}, {}) {place}", self.size, self.dtype)
    }
}

impl Choice {
    /// What a person waits for: load and first forward, where both were measured.
    fn seconds(&self) -> Option<f64> {
        self.ready_seconds.or(self.load_seconds)
    }

    /// What was not measured comes last.
    fn compare_speed(&self, other: &Choice) -> Ordering {
        let key = |choice: &Choice| choice.seconds().unwrap_or(f64::INFINITY);
        key(self).total_cmp(&key(other))
    }

    /// Whether another is as good in everything and better in something.
    fn is_beaten_by(&self, other: &Choice) -> bool {
        let key = |choice: &Choice| {
            let seconds = choice.seconds().unwrap_or(f64::INFINITY);
            (
                seconds,
                choice.host_bytes as f64,
                choice.device_bytes.unwrap_or(0) as f64,
            )
        };
        let (own, others) = (key(self), key(other));
        let no_worse = others.0 <= own.0 && others.1 <= own.1 && others.2 <= own.2;
        let is_as_good = other.is_exact >= self.is_exact && other.home <= self.home;
        no_worse && others != own && is_as_good
    }
}

/// The choices as a table.
pub fn sheet(title: String, choices: &[Choice]) -> Sheet {
    let has_device = choices.iter().any(|choice| choice.device_bytes.is_some());
    let has_ready = choices.iter().any(|choice| choice.ready_seconds.is_some());
    let mut columns = vec![words("technique"), numbers("host memory")];
    if has_device {
        columns.push(numbers("device memory"));
    }
    columns.push(numbers("load"));
    if has_ready {
        columns.push(numbers("load and first forward"));
    }
    columns.push(words("weights"));
    let seconds = |value: Option<f64>| value.map_or(ABSENT.to_owned(), units::seconds);
    let rows = choices.iter().map(|choice| {
        let mark = if choice.is_host_measured { "" } else { "≤ " };
        let mut row = vec![
            choice.name.to_owned(),
            format!("{mark}{}", units::bytes(choice.host_bytes)),
        ];
        if has_device {
            let device = choice.device_bytes.map(units::bytes);
            row.push(device.map_or(ABSENT.to_owned(), |bytes| format!("≤ {bytes}")));
        }
        row.push(seconds(choice.load_seconds));
        if has_ready {
            row.push(seconds(choice.ready_seconds));
        }
        row.push(match (choice.is_exact, choice.logits_error) {
            (true, _) => match choice.home {
                Home::OwnMemory => "the checkpoint's".to_owned(),
                Home::FilePages => "the checkpoint's, in the file's pages".to_owned(),
                Home::File => "the checkpoint's, read again for each forward".to_owned(),
            },
            (false, Some(error)) => format!("rounded: logits off by {:.2} %", 100.0 * error),
            (false, None) => "rounded".to_owned(),
        });
        row
    });
    let rows = rows.collect();
    Sheet {
        title,
        columns,
        rows,
        remarks: Vec::new(),
    }
}

/// The guide: every technique that no other beats in time, host and device memory at once; the fastest first.
pub fn guide(situation: &Situation, records: &[Record]) -> Sheet {
    let choices = situation.choices(records);
    let measured: Vec<&Choice> = choices
        .iter()
        .filter(|choice| choice.seconds().is_some())
        .collect();
    let unbeaten = measured
        .iter()
        .filter(|choice| !measured.iter().any(|other| choice.is_beaten_by(other)));
    let mut rows: Vec<Choice> = unbeaten.map(|choice| (*choice).clone()).collect();
    rows.sort_by(Choice::compare_speed);
    sheet(situation.title(), &rows)
}

#[cfg(test)]
mod tests {
    use lab::Status;

    use super::*;

    fn situation(memory: MemoryModel, host_bytes: u64, device_bytes: u64) -> Situation {
        Situation {
            size: Size::Xl,
            dtype: Dtype::F32,
            memory,
            host_bytes: Some(host_bytes),
            device_bytes: Some(device_bytes),
        }
    }

    fn fitting(situation: &Situation) -> Vec<&'static str> {
        let choices = situation.choices(&[]).into_iter();
        choices
            .filter(|choice| choice.fits)
            .map(|choice| choice.name)
            .collect()
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
    fn of_what_fits_the_fastest_that_keeps_the_weights_comes_first() {
        let situation = situation(MemoryModel::Unified, 16 << 30, 0);
        let record = |experiment: &str, load_seconds| Record {
            experiment: experiment.to_owned(),
            model: "xl".to_owned(),
            dtype: "f32".to_owned(),
            memory_model: "unified".to_owned(),
            cache: "warm".to_owned(),
            status: Status::Ok,
            verified: true,
            load_seconds: Some(load_seconds),
            ..Record::unmeasured()
        };
        let records = [
            record("naive", 9.0),
            record("streamed", 3.0),
            record("half", 1.0),
        ];
        let choices = situation.choices(&records);
        let names: Vec<_> = choices.iter().map(|choice| choice.name).collect();
        assert_eq!(names[..2], ["streamed", "naive"]);
        let guide = guide(&situation, &records);
        let rows: Vec<_> = guide.rows.iter().map(|row| &*row[0]).collect();
        assert_eq!(rows, ["half", "streamed"], "naive is beaten in everything");
    }
}

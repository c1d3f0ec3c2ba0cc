//! What of the recorded runs may be told in a situation: runs of one machine and one device only, and never a software
//! device's for a GPU.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use checkpoint::read_text;
use lab::MemoryModel;
use serde::Serialize;

use super::situation::Situation;
use crate::configuration::{Code, Configuration};
use crate::driver::{device_name, is_software};
use crate::record::Record;
use crate::results::{MACHINE, MAX_MACHINE_BYTES};

/// Where runs were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    pub machine: String,
    pub device: String,
    /// What the device's driver says of itself, where that is recorded.
    pub driver: Option<String>,
}

/// A recorded run, and where it was made.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub place: Place,
    /// What tells its machine from others of one name: CPU, cores and memory, where that is recorded.
    pub hardware: Option<String>,
    pub record: Record,
}

/// Whose runs are asked for.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// Those of this machine, which was named by a person.
    Named(&'a str),
    /// Those of this machine here, or of the only one that has any.
    Here(&'a str),
}

/// The runs that count: all of one place.
#[derive(Debug)]
pub struct Evidence {
    pub place: Option<Place>,
    pub records: Vec<Record>,
    /// What a person has to know of where they come from, or why there are none.
    pub remark: Option<String>,
}

impl Place {
    /// `flex on amd-epyc-2c-24g`, `software Vulkan: llvmpipe on …`, `cuda (NVIDIA H200) on …`
    pub fn describe(&self) -> String {
        let device = self.device_name();
        let driver = self.driver.as_deref().filter(|_| device == self.device);
        let driver = driver.and_then(|driver| driver.split(',').next());
        let driver = driver.map_or(String::new(), |driver| format!(" ({driver})"));
        format!("{device}{driver} on {}", self.machine)
    }

    /// `flex`, `cuda`, `software Vulkan: llvmpipe`
    pub fn device_name(&self) -> String {
        device_name(&self.device, self.driver.as_deref())
    }

    /// `None` where nothing tells.
    pub fn is_software(&self) -> Option<bool> {
        match (&self.driver, self.device.starts_with("cuda")) {
            (_, true) => Some(false),
            (driver, false) => driver.as_deref().map(is_software),
        }
    }
}

/// Every run in the folders of results in and below `root`; none where there is no such folder.
pub fn read(root: &Path) -> Vec<Recorded> {
    let mut recorded = Vec::new();
    for folder in folders(root, 2) {
        // What another version recorded, or is being set up, is no evidence.
        let Ok(records) = crate::results::read_runs(&folder) else {
            continue;
        };
        let hardware = hardware(&folder);
        let with_place = records.into_iter().map(|record| Recorded {
            hardware: hardware.clone(),
            place: Place {
                machine: record.machine.clone(),
                device: record.device.clone(),
                driver: record.driver.clone().filter(|_| has_own_memory(&record)),
            },
            record,
        });
        recorded.extend(with_place);
    }
    recorded
}

/// `root` and what lies at most `depth` folders below it, where runs are recorded, in the order of their names.
fn folders(root: &Path, depth: usize) -> Vec<PathBuf> {
    if root.join("runs.csv").is_file() {
        return vec![root.to_owned()];
    }
    if depth == 0 {
        return Vec::new();
    }
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut below: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    below.sort();
    let found = below.iter().flat_map(|folder| folders(folder, depth - 1));
    found.collect()
}

/// Of the record of the machine in a folder of results.
fn hardware(folder: &Path) -> Option<String> {
    let machine = read_text(&folder.join(MACHINE), MAX_MACHINE_BYTES).ok()?;
    let machine: toml::Table = machine.parse().ok()?;
    let cpu = machine.get("cpu")?.as_str()?;
    let cores = machine.get("logical_cores")?.as_integer()?;
    let memory = machine.get("memory_bytes")?.as_integer()?;
    // Kernels keep a little more or less of it for themselves.
    Some(format!(
        "{cpu}, {cores} cores, {} GiB",
        (memory + (1 << 29)) >> 30
    ))
}

/// Of each configuration the rows of the code that measured it most often; of the newest, where several did.
fn best_known(records: Vec<Record>) -> Vec<Record> {
    let mut counts: HashMap<(Configuration, Code), usize> = HashMap::new();
    for record in records.iter().filter(|record| record.is_measured()) {
        let key = (record.configuration(), record.code());
        *counts.entry(key).or_default() += 1;
    }
    let mut best: HashMap<Configuration, (usize, Code)> = HashMap::new();
    // From the oldest to the newest.
    for record in &records {
        let (configuration, code) = (record.configuration(), record.code());
        let count = counts.get(&(configuration.clone(), code.clone()));
        let count = count.copied().unwrap_or(0);
        let known = best.get(&configuration).map_or(0, |(known, _)| *known);
        if count >= known {
            best.insert(configuration, (count, code));
        }
    }
    let is_best = |record: &Record| {
        let of = best.get(&record.configuration());
        of.is_some_and(|(_, code)| *code == record.code())
    };
    records.into_iter().filter(is_best).collect()
}

fn has_own_memory(record: &Record) -> bool {
    record.memory_model == MemoryModel::Discrete.name()
}

/// The runs that count in a situation.
pub fn evidence(situation: &Situation, recorded: &[Recorded], whose: Whose<'_>) -> Evidence {
    let of_this: Vec<&Recorded> = recorded
        .iter()
        .filter(|run| is_of(situation, &run.record))
        .collect();
    let what = format!("{} in {}", situation.size, situation.dtype);
    let (fitting, others): (Vec<&Recorded>, Vec<&Recorded>) = of_this
        .into_iter()
        .partition(|run| is_like(situation, &run.place));
    if fitting.is_empty() {
        let other = others.first().map(|run| run.place.describe());
        return Evidence::none(match other {
            Some(other) => format!(
                "{what} was timed on {other} only, which tells nothing of the device asked for"
            ),
            None => format!("{what} was timed nowhere"),
        });
    }
    let mut machines: Vec<&str> = fitting.iter().map(|run| &*run.place.machine).collect();
    machines.sort_unstable();
    machines.dedup();
    let (machine, remark) = match (whose, &machines[..]) {
        (Whose::Named(name) | Whose::Here(name), known) if known.contains(&name) => (name, None),
        (Whose::Here(_), [only]) => {
            let remark = format!("measured on {only}, not on this machine");
            (*only, Some(remark))
        }
        (Whose::Here(_), several) => {
            return Evidence::none(format!(
                "{what} was not timed on this machine, but on several others: choose one with --machine ({})",
                several.join(", ")
            ));
        }
        (Whose::Named(name), known) => {
            return Evidence::none(format!(
                "{what} was not timed on {name}, but on {}",
                known.join(", ")
            ));
        }
    };
    let on_machine = || fitting.iter().filter(|run| run.place.machine == machine);
    let mut devices: Vec<&str> = on_machine().map(|run| &*run.place.device).collect();
    devices.sort_unstable();
    devices.dedup();
    if devices.len() > 1 {
        return Evidence::none(format!(
            "{what} was timed on several devices of {machine}: choose one with --device ({})",
            devices.join(", ")
        ));
    }
    // Names are made of few words: of several machines with one name the one that was measured most counts.
    let mut counts: BTreeMap<Option<&String>, usize> = BTreeMap::new();
    for run in on_machine() {
        *counts.entry(run.hardware.as_ref()).or_default() += 1;
    }
    let most = counts.iter().max_by_key(|(_, count)| **count);
    let hardware = most.map(|(hardware, _)| *hardware);
    let others = counts.len() > 1;
    let remark = match others {
        true => Some(format!(
            "{}runs of another machine that is called {machine}, too, are left out",
            remark.map_or(String::new(), |remark| format!("{remark}; "))
        )),
        false => remark,
    };
    let of_one = on_machine().filter(|run| Some(run.hardware.as_ref()) == hardware);
    Evidence::of(of_one.copied(), remark)
}

fn is_of(situation: &Situation, record: &Record) -> bool {
    record.model == situation.size.to_string()
        && record.dtype == situation.dtype.to_string()
        && record.memory_model == situation.memory.name()
        && situation
            .device
            .is_none_or(|device| record.device == device.to_string())
}

/// Whether what was measured there tells something of the device asked for. A driver that is not known could be
/// either.
fn is_like(situation: &Situation, place: &Place) -> bool {
    situation.memory == MemoryModel::Unified || place.is_software() == Some(situation.is_software)
}

impl Evidence {
    /// Runs of the newest driver of one device. Of several manifests that hold the same configuration the newest rows
    /// count, so they come last.
    fn of<'a>(runs: impl Iterator<Item = &'a Recorded>, remark: Option<String>) -> Evidence {
        let mut runs: Vec<&Recorded> = runs.collect();
        runs.sort_by(|a, b| a.record.started_at.cmp(&b.record.started_at));
        let place = runs.last().map(|run| run.place.clone());
        runs.retain(|run| Some(&run.place) == place.as_ref());
        let records = runs.into_iter().map(|run| run.record.clone()).collect();
        Evidence {
            records: best_known(records),
            place,
            remark,
        }
    }

    fn none(why: String) -> Evidence {
        Evidence {
            place: None,
            records: Vec::new(),
            remark: Some(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use checkpoint::Dtype;
    use gpt2::Size;

    use super::*;

    const LLVMPIPE: &str = "llvmpipe (LLVM 15.0.6, 256 bits), llvmpipe Mesa 22.3.6";

    fn run(machine: &str, device: &str, driver: Option<&str>) -> Recorded {
        let memory = match device {
            "flex" => MemoryModel::Unified,
            _ => MemoryModel::Discrete,
        };
        Recorded {
            hardware: None,
            place: Place {
                machine: machine.to_owned(),
                device: device.to_owned(),
                driver: driver.map(str::to_owned),
            },
            record: Record {
                machine: machine.to_owned(),
                driver: driver.map(str::to_owned),
                device: device.to_owned(),
                model: "xl".to_owned(),
                dtype: "f32".to_owned(),
                memory_model: memory.name().to_owned(),
                ..Record::unmeasured()
            },
        }
    }

    fn situation(device: Option<&str>, is_software: bool) -> Situation {
        let device = device.map(|device| device.parse::<lab::DeviceSpec>().unwrap());
        Situation {
            size: Size::Xl,
            dtype: Dtype::F32,
            memory: device.map_or(MemoryModel::Discrete, |device| {
                device.backend.memory_model()
            }),
            device,
            is_software,
            host_bytes: None,
            device_bytes: None,
        }
    }

    fn machine(evidence: &Evidence) -> Option<&str> {
        let machines = evidence.records.iter().map(|record| &*record.machine);
        let machines: Vec<&str> = machines.collect();
        assert!(machines.windows(2).all(|pair| pair[0] == pair[1]));
        machines.first().copied()
    }

    #[test]
    fn times_come_from_one_machine_and_another_one_is_named() {
        let flex = situation(Some("flex"), false);
        let (a, b) = (run("a", "flex", None), run("b", "flex", None));
        let both = [a.clone(), b];
        assert_eq!(
            machine(&evidence(&flex, &both, Whose::Here("b"))),
            Some("b")
        );
        assert_eq!(
            machine(&evidence(&flex, &both, Whose::Named("a"))),
            Some("a")
        );
        let neither = evidence(&flex, &both, Whose::Here("c"));
        let remark = neither.remark.as_deref().unwrap();
        assert!(
            neither.records.is_empty() && remark.contains("--machine (a, b)"),
            "{remark}"
        );
        let only = evidence(&flex, std::slice::from_ref(&a), Whose::Here("c"));
        let remark = only.remark.as_deref();
        assert_eq!(machine(&only), Some("a"));
        assert_eq!(remark, Some("measured on a, not on this machine"));
        let unknown = evidence(&flex, &[a], Whose::Named("c"));
        assert!(unknown.records.is_empty() && unknown.remark.unwrap().contains("but on a"));
    }

    #[test]
    fn a_software_device_tells_nothing_of_a_gpu_nor_a_gpu_of_it() {
        let software = run("a", "vulkan", Some(LLVMPIPE));
        let gpu = run("a", "vulkan", Some("NVIDIA H200, 143771 MiB"));
        let unknown = run("a", "vulkan", None);
        let both = [software.clone(), gpu, unknown.clone()];
        for (is_software, driver) in [(true, LLVMPIPE), (false, "NVIDIA H200, 143771 MiB")] {
            let found = evidence(
                &situation(Some("vulkan"), is_software),
                &both,
                Whose::Here("a"),
            );
            assert_eq!(found.records.len(), 1);
            assert_eq!(found.place.unwrap().driver.as_deref(), Some(driver));
        }
        // Only the free memory of a device was told.
        for runs in [[software], [unknown]] {
            let found = evidence(&situation(None, false), &runs, Whose::Here("a"));
            assert!(found.records.is_empty() && found.remark.unwrap().contains("tells nothing"));
        }
    }

    #[test]
    fn devices_of_one_machine_are_not_mixed() {
        let runs = [
            run("a", "cuda", None),
            run("a", "vulkan", Some("NVIDIA H200")),
        ];
        let several = evidence(&situation(None, false), &runs, Whose::Here("a"));
        assert!(several.records.is_empty());
        assert!(several.remark.unwrap().contains("--device (cuda, vulkan)"));
        let one = evidence(&situation(Some("cuda"), false), &runs, Whose::Here("a"));
        assert_eq!(one.records.len(), 1);
    }

    #[test]
    fn machines_of_one_name_are_told_apart_by_their_hardware() {
        let of = |hardware: &str| Recorded {
            hardware: Some(hardware.to_owned()),
            ..run("a", "flex", None)
        };
        let runs = [of("small"), of("small"), of("large")];
        let found = evidence(&situation(Some("flex"), false), &runs, Whose::Here("a"));
        assert_eq!(found.records.len(), 2);
        assert!(found.remark.unwrap().contains("left out"));
    }

    #[test]
    fn runs_are_read_from_folders_of_results_with_their_place() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/quick");
        std::fs::create_dir_all(&folder).unwrap();
        let mut rows = Vec::new();
        for (device, driver) in [("vulkan", Some(LLVMPIPE)), ("flex", None)] {
            let mut row = run("a", device, driver).record;
            row.run_id = device.to_owned();
            rows.extend(crate::record::write_row(&row, rows.is_empty()).unwrap());
        }
        std::fs::write(folder.join("runs.csv"), rows).unwrap();
        let found = read(root.path());
        let described: Vec<String> = found.iter().map(|run| run.place.describe()).collect();
        assert_eq!(described, ["software Vulkan: llvmpipe on a", "flex on a"]);
        assert!(read(&root.path().join("not-there")).is_empty());
    }
}

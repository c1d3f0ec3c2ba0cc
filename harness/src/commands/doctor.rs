//! `harness doctor`: what a person should know of this machine before trusting its numbers.

use lab::DeviceReport;
use meter::{CountingAllocator, HostCaps, Process, ProcessMemory};
use serde_json::{Value, json};

use super::list;
use crate::cli::{DoctorArgs, StoreArgs};
use crate::configuration::Code;
use crate::machine::{self, Machine};
use crate::{checkpoints, units};

pub fn doctor(args: &DoctorArgs) -> anyhow::Result<()> {
    let devices = lab::find_devices();
    let caps = HostCaps::detect();
    let examined = Examined {
        machine: Machine::detect(None, &devices, &args.store.checkpoints, &caps),
        code: machine::code(),
        instruments: instruments(&caps),
        devices,
    };
    match args.format.json {
        true => println!("{:#}", examined.as_json(&args.store)?),
        false => examined.print(&args.store),
    }
    Ok(())
}

struct Examined {
    machine: Machine,
    code: Code,
    devices: Vec<DeviceReport>,
    instruments: Vec<Instrument>,
}

/// Something that measures or enforces.
struct Instrument {
    what: &'static str,
    works: bool,
}

fn instruments(caps: &HostCaps) -> Vec<Instrument> {
    let memory = ProcessMemory::now().is_some();
    let measuring = [
        (
            "host heap: counting allocator",
            CountingAllocator::is_installed(),
        ),
        ("host resident peak: VmHWM", memory),
        (
            "host resident peak, reset before the load: /proc/self/clear_refs",
            ProcessMemory::reset_peak(Process::Own),
        ),
        ("host anonymous and file pages: sampled", memory),
        (
            "bytes read: /proc/self/io",
            ProcessMemory::bytes_read(Process::Own).is_some(),
        ),
        (
            "page cache: mincore and posix_fadvise",
            cfg!(target_os = "linux"),
        ),
    ];
    let enforcing = meter::CapMechanism::ALL.map(|mechanism| match mechanism {
        meter::CapMechanism::DataLimit => ("host caps: RLIMIT_DATA", cfg!(target_os = "linux")),
        meter::CapMechanism::CgroupV1 => (
            "host caps and their peak: cgroup v1",
            caps.mechanism() == Some(mechanism),
        ),
        meter::CapMechanism::CgroupV2 => (
            "host caps and their peak: cgroup v2",
            caps.mechanism() == Some(mechanism),
        ),
    });
    let all = measuring.into_iter().chain(enforcing);
    all.map(|(what, works)| Instrument { what, works })
        .collect()
}

impl Examined {
    fn print(&self, store: &StoreArgs) {
        let machine = &self.machine;
        let unknown = || "unknown".to_owned();
        let size = |bytes: Option<u64>| bytes.map_or_else(unknown, units::bytes);

        let mut about = list::table(&["machine", &machine.machine]);
        about.add_row(["system", &machine.os]);
        about.add_row(["kernel", &machine.kernel.clone().unwrap_or_else(unknown)]);
        about.add_row(["CPU", &machine.cpu.clone().unwrap_or_else(unknown)]);
        about.add_row(["logical cores", &machine.logical_cores.to_string()]);
        about.add_row(["memory", &size(machine.memory_bytes)]);
        about.add_row(["memory available", &size(machine::available_memory_bytes())]);
        let disk = size(checkpoints::free_disk_bytes(&store.checkpoints));
        about.add_row([
            &format!("disk free for {}", store.checkpoints.display()),
            &disk,
        ]);
        println!("{about}\n");

        let mut versions = list::table(&["what", "version"]);
        versions.add_row(["harness", machine::VERSION]);
        for (name, version) in machine::VERSIONS {
            versions.add_row([name, version]);
        }
        if let Some(commit) = &self.code.commit {
            let state = match self.code.dirty {
                Some(true) => "with changes, or not what this program was built from",
                _ => "clean",
            };
            versions.add_row(["commit", &format!("{commit}, {state}")]);
        }
        println!("{versions}\n");

        println!("{}\n", list::devices(&self.devices));

        let mut instruments = list::table(&["instrument", "works here"]);
        for Instrument { what, works } in &self.instruments {
            instruments.add_row([*what, if *works { "yes" } else { "no" }]);
        }
        println!("{instruments}");
        println!("host caps are enforced by {}", machine.host_caps);
    }

    fn as_json(&self, store: &StoreArgs) -> anyhow::Result<Value> {
        let instruments = self.instruments.iter().map(|instrument| {
            json!({
                "name": instrument.what,
                "works": instrument.works,
            })
        });
        Ok(json!({
            "harness": machine::VERSION,
            "commit": self.code.commit,
            "dirty": self.code.dirty,
            "machine": serde_json::to_value(&self.machine)?,
            "memory_available_bytes": machine::available_memory_bytes(),
            "checkpoints": {
                "folder": store.checkpoints,
                "disk_free_bytes": checkpoints::free_disk_bytes(&store.checkpoints),
            },
            "devices": list::devices_as_json(&self.devices),
            "instruments": instruments.collect::<Vec<_>>(),
        }))
    }
}

//! `harness doctor`: what a person should know of this machine before trusting its numbers.

use lab::HostCaps;
use lab::meter::{CountingAllocator, Process, ProcessMemory};

use super::list;
use crate::cli::StoreArgs;
use crate::machine::{self, Machine};
use crate::{checkpoints, units};

pub fn doctor(args: &StoreArgs) {
    let devices = lab::find_devices();
    let caps = HostCaps::detect();
    let machine = Machine::detect(None, &devices, &args.checkpoints, &caps);
    let unknown = || "unknown".to_owned();
    let size = |bytes: Option<u64>| bytes.map_or_else(unknown, units::bytes);

    let mut about = list::table(&["machine", &machine.machine]);
    about.add_row(["system", &machine.os]);
    about.add_row(["kernel", &machine.kernel.clone().unwrap_or_else(unknown)]);
    about.add_row(["CPU", &machine.cpu.clone().unwrap_or_else(unknown)]);
    about.add_row(["logical cores", &machine.logical_cores.to_string()]);
    about.add_row(["memory", &size(machine.memory_bytes)]);
    about.add_row(["memory available", &size(machine::available_memory_bytes())]);
    let disk = size(checkpoints::free_disk_bytes(&args.checkpoints));
    about.add_row([
        &format!("disk free for {}", args.checkpoints.display()),
        &disk,
    ]);
    println!("{about}\n");

    let mut versions = list::table(&["what", "version"]);
    versions.add_row(["harness", env!("CARGO_PKG_VERSION")]);
    for (name, version) in machine::VERSIONS {
        versions.add_row([name, version]);
    }
    let code = machine::code();
    if let Some(commit) = code.commit {
        let state = match code.dirty {
            Some(true) => "with changes",
            _ => "clean",
        };
        versions.add_row(["commit", &format!("{commit}, {state}")]);
    }
    println!("{versions}\n");

    println!("{}\n", list::devices(&devices));

    let mut instruments = list::table(&["instrument", "works here"]);
    let yes_or_no = |works: bool| if works { "yes" } else { "no" };
    let memory = ProcessMemory::now().is_some();
    let instrument_rows = [
        (
            "host heap: counting allocator",
            CountingAllocator::is_installed(),
        ),
        ("host resident peak: VmHWM", memory),
        (
            "  reset before the load: /proc/self/clear_refs",
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
    for (what, works) in instrument_rows {
        instruments.add_row([what, yes_or_no(works)]);
    }
    for mechanism in lab::CapMechanism::ALL {
        let what = match mechanism {
            lab::CapMechanism::DataLimit => "host caps: RLIMIT_DATA",
            lab::CapMechanism::CgroupV1 => "host caps and their peak: cgroup v1",
            lab::CapMechanism::CgroupV2 => "host caps and their peak: cgroup v2",
        };
        let works = match mechanism {
            lab::CapMechanism::DataLimit => cfg!(target_os = "linux"),
            cgroup => caps.mechanism() == Some(cgroup),
        };
        instruments.add_row([what, yes_or_no(works)]);
    }
    println!("{instruments}");
    println!("host caps are enforced by {}", machine.host_caps);
}

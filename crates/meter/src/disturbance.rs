//! What disturbs a load from outside: the kernel's counters before it, and after it.

use crate::process::{Process, ProcessMemory};

/// What happened during a load. What the kernel does not tell is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Disturbances {
    /// Page faults that had to read from a disk.
    pub major_faults: Option<u64>,
    /// Seconds in which a task of the machine waited for a disk (PSI), where page faults of the process had to read from one: the
    /// most that these can have cost.
    pub disk_wait_seconds: Option<f64>,
    /// CPU seconds that the hypervisor took, over the number of CPUs.
    pub stolen_seconds: Option<f64>,
    /// Seconds in which the kernel throttled the CPUs, for their heat or for a cgroup's quota.
    pub throttled_seconds: Option<f64>,
}

/// Counters as they stood before the load.
pub struct DisturbanceWatch {
    process: Process,
    major_faults: Option<u64>,
    disk_wait_seconds: Option<f64>,
    throttled_seconds: Option<f64>,
    cpu: Option<CpuTicks>,
}

impl Disturbances {
    /// Begins to watch what disturbs this process.
    pub fn watch(process: Process) -> DisturbanceWatch {
        DisturbanceWatch {
            process,
            major_faults: ProcessMemory::major_faults(process),
            disk_wait_seconds: disk_wait_seconds(),
            throttled_seconds: throttled_seconds(),
            cpu: CpuTicks::now(),
        }
    }
}

impl DisturbanceWatch {
    /// What has happened since.
    pub fn sum_up(&self) -> Disturbances {
        let since = |now: Option<u64>, before: Option<u64>| {
            now.zip(before)
                .map(|(now, before)| now.saturating_sub(before))
        };
        let seconds_since = |now: Option<f64>, before: Option<f64>| {
            now.zip(before).map(|(now, before)| (now - before).max(0.0))
        };
        let major_faults = since(ProcessMemory::major_faults(self.process), self.major_faults);
        // Reads past the page cache are meant to wait; page faults are not.
        let waits_for_no_page = major_faults == Some(0);
        Disturbances {
            major_faults,
            disk_wait_seconds: seconds_since(disk_wait_seconds(), self.disk_wait_seconds)
                .map(|seconds| if waits_for_no_page { 0.0 } else { seconds }),
            throttled_seconds: seconds_since(throttled_seconds(), self.throttled_seconds),
            stolen_seconds: CpuTicks::now()
                .zip(self.cpu)
                .map(|(now, before)| now.stolen_seconds(before)),
        }
    }
}

/// Of all CPUs together, from `/proc/stat`.
#[derive(Debug, Clone, Copy)]
struct CpuTicks {
    stolen: u64,
    cpus: u64,
    per_second: u64,
}

impl CpuTicks {
    #[cfg(target_os = "linux")]
    fn now() -> Option<CpuTicks> {
        use procfs::CurrentSI;
        let stat = procfs::KernelStats::current().ok()?;
        Some(CpuTicks {
            stolen: stat.total.steal?,
            cpus: (stat.cpu_time.len() as u64).max(1),
            per_second: procfs::ticks_per_second().max(1),
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn now() -> Option<CpuTicks> {
        None
    }

    /// Of each CPU, on average. The counter moves by whole ticks: what one of them says may be from before the load, and is no
    /// finding.
    fn stolen_seconds(self, before: CpuTicks) -> f64 {
        let ticks = self.stolen.saturating_sub(before.stolen).saturating_sub(1);
        ticks as f64 / self.per_second as f64 / self.cpus as f64
    }
}

/// How long some task of this machine has waited for a disk so far: the kernel's pressure stall information.
fn disk_wait_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/pressure/io").ok()?;
    let line = text.lines().find(|line| line.starts_with("some"))?;
    let micros: u64 = line.rsplit_once("total=")?.1.trim().parse().ok()?;
    Some(micros as f64 / 1e6)
}

/// How long the kernel has throttled so far: the CPUs for their heat, or this process's cgroup for its quota.
fn throttled_seconds() -> Option<f64> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let heat = (0..).map_while(|cpu| {
        let folder = format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
        let path = format!("{folder}/package_throttle_total_time_ms");
        Some(number(&std::fs::read_to_string(path).ok()?)? / 1e3)
    });
    // Of cgroup v2 in microseconds, of cgroup v1 in nanoseconds.
    let files = [
        ("/sys/fs/cgroup/cpu.stat", "throttled_usec ", 1e6),
        ("/sys/fs/cgroup/cpu/cpu.stat", "throttled_time ", 1e9),
    ];
    let quota = files.into_iter().filter_map(|(path, field, scale)| {
        let text = std::fs::read_to_string(path).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix(field))?;
        Some(number(value)? / scale)
    });
    heat.chain(quota).reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stolen_tick_says_nothing_and_more_are_shared_by_the_cpus() {
        let at = |stolen| CpuTicks {
            stolen,
            cpus: 2,
            per_second: 100,
        };
        assert_eq!(at(11).stolen_seconds(at(10)), 0.0);
        assert_eq!(at(31).stolen_seconds(at(10)), 0.1);
    }

    #[test]
    fn what_happened_since_is_summed_up() {
        let since = Disturbances::watch(Process::Own).sum_up();
        if cfg!(target_os = "linux") {
            assert!(since.major_faults.is_some());
            assert_eq!(
                since.disk_wait_seconds.is_some(),
                disk_wait_seconds().is_some()
            );
        }
    }
}

//! What may have spoilt a run: things outside the technique that change what is measured.

use super::{Process, ProcessMemory};
use crate::CacheState;

/// From here on, stolen time is told.
const STOLEN_SHARE: f64 = 0.05;

/// Counters as they stood before the load.
pub(crate) struct Disturbances {
    process: Process,
    major_faults: Option<u64>,
    throttled: Option<u64>,
    cpu: Option<CpuTicks>,
}

/// What happened during a load.
pub(crate) struct Disturbed {
    /// Page faults that had to read from a disk.
    pub major_faults: Option<u64>,
    /// What may have spoilt the numbers, in words.
    pub spoilt_by: Vec<String>,
}

impl Disturbances {
    pub fn watch(process: Process) -> Disturbances {
        Disturbances {
            process,
            major_faults: ProcessMemory::major_faults(process),
            throttled: throttled(),
            cpu: CpuTicks::now(),
        }
    }

    /// `swap_peak_bytes` is the most of the process that lay in swap. Under a cap, page faults are what is
    /// asked for.
    pub fn sum_up(
        &self,
        cache: CacheState,
        is_capped: bool,
        swap_peak_bytes: Option<u64>,
    ) -> Disturbed {
        let since = |now: Option<u64>, before: Option<u64>| {
            now.zip(before)
                .map(|(now, before)| now.saturating_sub(before))
        };
        let major_faults = since(ProcessMemory::major_faults(self.process), self.major_faults);
        let mut spoilt_by = Vec::new();
        if let Some(bytes) = swap_peak_bytes.filter(|&bytes| bytes > 0) {
            spoilt_by.push(format!("{} KiB of it were in swap", bytes / 1024));
        }
        if let Some(faults) = major_faults.filter(|&faults| faults > 0)
            && cache == CacheState::Warm
            && !is_capped
        {
            spoilt_by.push(format!("{faults} major faults with a warm cache"));
        }
        if let Some(times) = since(throttled(), self.throttled).filter(|&times| times > 0) {
            spoilt_by.push(format!("the CPU was throttled {times} times"));
        }
        if let Some(share) = self
            .cpu
            .and_then(|before| CpuTicks::now()?.stolen_share(before))
            && share >= STOLEN_SHARE
        {
            let percent = share * 100.0;
            spoilt_by.push(format!("the hypervisor took {percent:.0} % of the CPUs"));
        }
        Disturbed {
            major_faults,
            spoilt_by,
        }
    }
}

/// Of all CPUs together, from `/proc/stat`.
#[derive(Debug, Clone, Copy)]
struct CpuTicks {
    all: u64,
    stolen: u64,
}

impl CpuTicks {
    #[cfg(target_os = "linux")]
    fn now() -> Option<CpuTicks> {
        use procfs::CurrentSI;
        let total = procfs::KernelStats::current().ok()?.total;
        let stolen = total.steal.unwrap_or(0);
        let waiting = total.iowait.unwrap_or(0);
        Some(CpuTicks {
            all: total.user + total.nice + total.system + total.idle + waiting + stolen,
            stolen,
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn now() -> Option<CpuTicks> {
        None
    }

    /// `None` over less than a fifth of a second, where a tick says nothing.
    fn stolen_share(self, before: CpuTicks) -> Option<f64> {
        let all = self.all.saturating_sub(before.all);
        let stolen = self.stolen.saturating_sub(before.stolen);
        (all >= 20).then(|| stolen as f64 / all as f64)
    }
}

/// How often the kernel throttled: the CPUs for their heat, or this process's cgroup for its quota.
fn throttled() -> Option<u64> {
    let heat = (0..).map_while(|cpu| {
        let path =
            format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle/package_throttle_count");
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    });
    let quota = ["/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat"];
    let quota = quota.into_iter().filter_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "))?;
        line.trim().parse::<u64>().ok()
    });
    heat.chain(quota).reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_a_share_of_what_passed_on_all_cpus() {
        let before = CpuTicks {
            all: 1000,
            stolen: 10,
        };
        let after = CpuTicks {
            all: 1200,
            stolen: 40,
        };
        assert_eq!(after.stolen_share(before), Some(0.15));
        assert_eq!(before.stolen_share(before), None, "no time passed");
    }

    #[test]
    fn swap_and_major_faults_of_a_warm_run_are_told_and_those_of_a_capped_one_are_not() {
        let mut before = Disturbances::watch(Process::Own);
        before.major_faults = before.major_faults.map(|_| 0);
        let Some(faults) = ProcessMemory::major_faults(Process::Own) else {
            return;
        };
        let told = |cache, is_capped| before.sum_up(cache, is_capped, None).spoilt_by.join(", ");
        let says_so = |told: &str| told.contains("major faults");
        assert_eq!(says_so(&told(CacheState::Warm, false)), faults > 0);
        assert!(!says_so(&told(CacheState::Warm, true)));
        assert!(!says_so(&told(CacheState::Cold, false)));
        let swapped = before.sum_up(CacheState::Cold, false, Some(4096));
        assert!(swapped.spoilt_by[0].contains("4 KiB of it were in swap"));
    }
}

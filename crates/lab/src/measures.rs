//! Everything that is measured of a run. A new measure is a line here, and the instrument that takes it.

use meter::{Disturbances, Peaks};
use serde::{Deserialize, Serialize};

use crate::columns;

columns! {
    /// What was measured of a run. What could not be measured is `None`, never 0. Peaks are above the baseline taken just
    /// before the load.
    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    pub struct Measures {
        /// Fraction of the checkpoint's pages in the page cache before the load.
        resident_fraction: Option<f64> = Fraction, Exact, 1;
        /// From the first statement of the load until the device is synchronised.
        load_seconds: Option<f64> = Seconds, Exact, 1;
        /// The first forward on the reference tokens.
        first_forward_seconds: Option<f64> = Seconds, Exact, 1;
        /// How far its logits are from the reference: the largest difference over the reference's largest magnitude.
        logits_error: Option<f64> = Fraction, Exact, 3;
        /// Resident set of the process before the load.
        host_rss_baseline_bytes: Option<u64> = Bytes, Exact, 2;
        /// Peak of live Rust allocations, by the counting allocator.
        host_heap_peak_bytes: Option<u64> = Bytes, Exact, 1;
        /// Peak of the resident set, by the kernel (VmHWM).
        host_rss_peak_bytes: Option<u64> = Bytes, Exact, 1;
        /// Peak of anonymous pages (RssAnon).
        host_anon_peak_bytes: Option<u64> = Bytes, Sampled, 1;
        /// Peak of pages of mapped files (RssFile): the kernel takes them back when memory is short.
        host_file_peak_bytes: Option<u64> = Bytes, Sampled, 1;
        /// Peak of the run's own cgroup, by the kernel. File pages that were in the cache before are counted where they were
        /// read first.
        host_cgroup_peak_bytes: Option<u64> = Bytes, Exact, 2;
        /// The phase in which the heap peak was set.
        host_peak_phase: Option<String> = Text, Marks, 1;
        /// Peak of the device memory that live tensors hold.
        device_in_use_peak_bytes: Option<u64> = Bytes, Marks, 1;
        /// Peak of the device memory that the allocator's pools hold.
        device_reserved_peak_bytes: Option<u64> = Bytes, Marks, 1;
        /// Peak of what the device's driver holds for the process.
        device_driver_peak_bytes: Option<u64> = Bytes, Sampled, 1;
        /// CUDA's default memory pool: the most bytes handed out at once, by the driver.
        device_pool_used_peak_bytes: Option<u64> = Bytes, Exact, 2;
        /// CUDA's default memory pool: the most bytes held at once, by the driver.
        device_pool_reserved_peak_bytes: Option<u64> = Bytes, Exact, 2;
        /// The phase in which the device peak was set.
        device_peak_phase: Option<String> = Text, Marks, 1;
        /// Bytes that read calls returned during the load; page faults of a mapped file are no read calls.
        bytes_read: Option<u64> = Bytes, Exact, 1;
        /// The host heap peak that the technique promises.
        host_contract_bytes: Option<u64> = Bytes, Computed, 1;
        /// The peak of device memory in use that the technique promises.
        device_contract_bytes: Option<u64> = Bytes, Computed, 1;
        /// Page faults during the load that had to read from a disk.
        major_faults: Option<u64> = Count, Exact, 2;
        /// Seconds of the load in which a task of the machine waited for a disk (PSI), where page faults of the run had to read
        /// from one: the most that these can have cost.
        disk_wait_seconds: Option<f64> = Seconds, Exact, 4;
        /// CPU seconds that the hypervisor took during the load, over the number of CPUs.
        stolen_seconds: Option<f64> = Seconds, Exact, 4;
        /// Seconds of the load in which the kernel throttled the CPUs, for their heat or for a cgroup's quota.
        throttled_seconds: Option<f64> = Seconds, Exact, 4;
        /// The most of the process that lay in swap.
        swap_peak_bytes: Option<u64> = Bytes, Sampled, 4;
        /// Other processes that used the GPU meanwhile, by its driver.
        other_device_processes: Option<u64> = Count, Exact, 4;
        /// Peak of the page-locked host memory that a GPU copies from, of the library's own; it is in the heap's peak, too. What
        /// CubeCL locks for itself is not counted.
        host_locked_peak_bytes: Option<u64> = Bytes, Exact, 6;
        /// The peak of device memory held by the allocator's pools that the technique promises.
        device_reserved_contract_bytes: Option<u64> = Bytes, Computed, 6;
    }
}

/// The kernel charges a cgroup ahead, in batches of 64 pages for each CPU, and gives back what is left over when a charge fails
/// (`MEMCG_CHARGE_BATCH`): its peak may stay so far below the limit that it ran into.
const CHARGE_BYTES: u64 = 1 << 20;

impl Measures {
    /// Load and first forward together: what a person waits for.
    pub fn ready_seconds(&self) -> Option<f64> {
        Some(self.load_seconds? + self.first_forward_seconds?)
    }

    /// Whether the measured peaks are within the contract; `None` where neither was measured.
    pub fn contract_held(&self) -> Option<bool> {
        let within = |peak: Option<u64>, contract: Option<u64>| Some(peak? <= contract?);
        let host = within(self.host_heap_peak_bytes, self.host_contract_bytes);
        let device = within(self.device_in_use_peak_bytes, self.device_contract_bytes);
        let pools = self.device_reserved_peak_bytes;
        let pools = within(pools, self.device_reserved_contract_bytes);
        let judged = [host, device, pools].into_iter().flatten();
        judged.reduce(|one, other| one && other)
    }

    /// Whether the run lived by reclaim: what its cgroup held came up to its cap, so that the kernel took pages of files back from it,
    /// or it would have died. `None` where the cgroup's peak is not known.
    pub fn lived_by_reclaim(&self, cap_bytes: u64) -> Option<bool> {
        Some(self.host_cgroup_peak_bytes? + CHARGE_BYTES >= cap_bytes)
    }

    /// Adds what disturbed the load.
    pub fn add_disturbances(&mut self, disturbances: Disturbances) {
        self.major_faults = disturbances.major_faults;
        self.disk_wait_seconds = disturbances.disk_wait_seconds;
        self.stolen_seconds = disturbances.stolen_seconds;
        self.throttled_seconds = disturbances.throttled_seconds;
    }
}

/// What the instruments saw; the rest is absent.
impl From<&Peaks> for Measures {
    fn from(peaks: &Peaks) -> Measures {
        Measures {
            host_rss_baseline_bytes: peaks.rss_baseline_bytes,
            host_heap_peak_bytes: peaks.heap_peak_bytes,
            host_rss_peak_bytes: peaks.rss_peak_bytes,
            host_anon_peak_bytes: peaks.anon_peak_bytes,
            host_file_peak_bytes: peaks.file_peak_bytes,
            host_cgroup_peak_bytes: peaks.cgroup_peak_bytes,
            host_peak_phase: peaks.host_peak_phase.map(|phase| phase.to_string()),
            device_in_use_peak_bytes: peaks.device_in_use_peak_bytes,
            device_reserved_peak_bytes: peaks.device_reserved_peak_bytes,
            device_driver_peak_bytes: peaks.driver_peak_bytes,
            device_peak_phase: peaks.device_peak_phase.map(|phase| phase.to_string()),
            bytes_read: peaks.bytes_read,
            swap_peak_bytes: peaks.swap_peak_bytes,
            ..Measures::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_whose_cgroup_came_up_to_its_cap_lived_by_reclaim_and_one_without_a_peak_is_unknown() {
        let peak = |bytes| Measures {
            host_cgroup_peak_bytes: bytes,
            ..Measures::default()
        };
        let cap = 1 << 30;
        assert_eq!(peak(Some(cap)).lived_by_reclaim(cap), Some(true));
        assert_eq!(
            peak(Some(cap - (256 << 10))).lived_by_reclaim(cap),
            Some(true)
        );
        assert_eq!(
            peak(Some(cap - (8 << 20))).lived_by_reclaim(cap),
            Some(false)
        );
        assert_eq!(peak(None).lived_by_reclaim(cap), None);
    }
}

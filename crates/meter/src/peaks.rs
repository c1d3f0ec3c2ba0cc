//! Everything that the instruments measure of one load.

use crate::sample::{Phase, Sample};

/// What a load held at most, above the baseline. What could not be measured is `None`, never 0.
#[derive(Debug, Clone, Default)]
pub struct Peaks {
    /// Resident set of the process before the load.
    pub rss_baseline_bytes: Option<u64>,
    /// Live Rust allocations, by the counting allocator.
    pub heap_peak_bytes: Option<u64>,
    /// The resident set, by the kernel (`VmHWM`).
    pub rss_peak_bytes: Option<u64>,
    /// Anonymous pages, sampled.
    pub anon_peak_bytes: Option<u64>,
    /// Pages of mapped files, sampled.
    pub file_peak_bytes: Option<u64>,
    /// Shared memory, sampled.
    pub shared_peak_bytes: Option<u64>,
    /// What lay in swap, sampled; the baseline is not taken off.
    pub swap_peak_bytes: Option<u64>,
    /// The run's own cgroup, by the kernel.
    pub cgroup_peak_bytes: Option<u64>,
    /// What the device's driver held for the process, sampled.
    pub driver_peak_bytes: Option<u64>,
    /// The phase in which the heap peak was set.
    pub host_peak_phase: Option<Phase>,
    /// Held by live tensors on the device at the last mark.
    pub device_in_use_bytes: Option<u64>,
    /// Held by live tensors on the device, at the marks.
    pub device_in_use_peak_bytes: Option<u64>,
    /// Held by the pools of the device's allocator, at the marks.
    pub device_reserved_peak_bytes: Option<u64>,
    /// The phase in which the device peak was set.
    pub device_peak_phase: Option<Phase>,
    /// What read calls returned.
    pub bytes_read: Option<u64>,
    /// Memory over time.
    pub timeline: Vec<Sample>,
}

//! What a worker reports of its run.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::meter::Sample;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Loaded and verified.
    Ok,
    /// An error, a crash, or a model that is not the checkpoint's.
    Failed,
    /// Host or device memory ran out.
    Oom,
    /// It took longer than the manifest allows.
    Timeout,
    /// It was not started, or could not be set up as asked.
    Skipped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Ok => "ok",
            Status::Failed => "failed",
            Status::Oom => "oom",
            Status::Timeout => "timeout",
            Status::Skipped => "skipped",
        })
    }
}

/// The result of one run. What could not be measured is `None`, never 0. Peaks are above the baseline
/// taken just before the load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Why it ended so, where it did not end well.
    pub reason: Option<String>,
    /// Whether every parameter and, where forward ran, the logits were found right.
    pub verified: bool,
    /// Fraction of the checkpoint's pages in the page cache before the load.
    pub resident_fraction: Option<f64>,
    /// From the first statement of the load until the device is synchronised.
    pub load_seconds: Option<f64>,
    /// The first forward on the reference tokens.
    pub first_forward_seconds: Option<f64>,
    /// How far its logits are from the reference: the largest difference over the reference's largest magnitude.
    pub logits_error: Option<f64>,
    /// Resident set of the process before the load.
    pub host_rss_baseline_bytes: Option<u64>,
    /// Peak of the counting allocator.
    pub host_heap_peak_bytes: Option<u64>,
    /// Peak resident set, by the kernel.
    pub host_rss_peak_bytes: Option<u64>,
    /// Peak of anonymous pages, sampled.
    pub host_anon_peak_bytes: Option<u64>,
    /// Peak of file-backed pages, sampled.
    pub host_file_peak_bytes: Option<u64>,
    /// Peak of the run's own cgroup, by the kernel. File pages that were in the cache before are counted where
    /// they were read first.
    pub host_cgroup_peak_bytes: Option<u64>,
    /// Phase in which the heap peak was set.
    pub host_peak_phase: Option<String>,
    /// Peak of the device memory in use, at the marks.
    pub device_in_use_peak_bytes: Option<u64>,
    /// Peak of the device memory reserved, at the marks.
    pub device_reserved_peak_bytes: Option<u64>,
    /// Peak of what the driver holds for the process, sampled.
    pub device_driver_peak_bytes: Option<u64>,
    /// CUDA's default memory pool: the most bytes handed out at once, by the driver.
    pub device_pool_used_peak_bytes: Option<u64>,
    /// CUDA's default memory pool: the most bytes held at once, by the driver.
    pub device_pool_reserved_peak_bytes: Option<u64>,
    /// Phase in which the device peak was set.
    pub device_peak_phase: Option<String>,
    /// Bytes that read calls returned during the load (page faults of a mapped file are no read calls).
    pub bytes_read: Option<u64>,
    /// Promised host heap peak.
    pub host_contract_bytes: Option<u64>,
    /// Promised device peak.
    pub device_contract_bytes: Option<u64>,
    /// Page faults during the load that had to read from a disk.
    pub major_faults: Option<u64>,
    /// What may have spoilt the numbers, each in words; empty where nothing was found.
    pub spoilt_by: Vec<String>,
    /// Memory over time.
    pub timeline: Vec<Sample>,
}

impl Outcome {
    /// A run that ended without measurements.
    pub fn ended(status: Status, reason: impl Into<String>) -> Outcome {
        Outcome {
            status,
            reason: Some(reason.into()),
            verified: false,
            resident_fraction: None,
            load_seconds: None,
            first_forward_seconds: None,
            logits_error: None,
            host_rss_baseline_bytes: None,
            host_heap_peak_bytes: None,
            host_rss_peak_bytes: None,
            host_anon_peak_bytes: None,
            host_file_peak_bytes: None,
            host_cgroup_peak_bytes: None,
            host_peak_phase: None,
            device_in_use_peak_bytes: None,
            device_reserved_peak_bytes: None,
            device_driver_peak_bytes: None,
            device_pool_used_peak_bytes: None,
            device_pool_reserved_peak_bytes: None,
            device_peak_phase: None,
            bytes_read: None,
            host_contract_bytes: None,
            device_contract_bytes: None,
            major_faults: None,
            spoilt_by: Vec::new(),
            timeline: Vec::new(),
        }
    }

    /// Whether the measured peaks are within the contract; `None` where neither was measured.
    pub fn contract_held(&self) -> Option<bool> {
        let within = |peak: Option<u64>, contract: Option<u64>| Some(peak? <= contract?);
        let host = within(self.host_heap_peak_bytes, self.host_contract_bytes);
        let device = within(self.device_in_use_peak_bytes, self.device_contract_bytes);
        match (host, device) {
            (None, None) => None,
            (host, device) => Some(host.unwrap_or(true) && device.unwrap_or(true)),
        }
    }
}

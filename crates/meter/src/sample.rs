//! Memory at one moment of a load, and what the load was doing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a run is doing: named with every peak, so that one knows which step set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Opening the checkpoint: building its index, mapping its files.
    Open,
    /// Giving the model's parameters memory: random weights, or empty tensors.
    Materialise,
    /// Reading tensors to the host.
    Read,
    /// Bringing tensors to the device.
    Upload,
    /// Making tensors the model's parameters.
    Assign,
    /// Freeing what is not needed any more.
    Drop,
}

impl Phase {
    /// Every phase, in the order in which a load mostly passes through them.
    pub const ALL: [Phase; 6] = [
        Phase::Open,
        Phase::Materialise,
        Phase::Read,
        Phase::Upload,
        Phase::Assign,
        Phase::Drop,
    ];

    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Open => "open",
            Phase::Materialise => "materialise",
            Phase::Read => "read",
            Phase::Upload => "upload",
            Phase::Assign => "assign",
            Phase::Drop => "drop",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Memory at one moment of a load, above the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Since the load began.
    pub time_seconds: f64,
    /// What the run was doing.
    pub phase: Phase,
    /// Live Rust allocations; `None` where the counting allocator is not installed.
    pub host_heap_bytes: Option<u64>,
    /// Anonymous pages of the process; a software Vulkan driver's buffers may be among them.
    pub host_anon_bytes: u64,
    /// File-backed pages of the process.
    pub host_file_bytes: u64,
    /// Device memory in use, as last read by the loader; `None` on unified memory.
    pub device_in_use_bytes: Option<u64>,
    /// Device memory that the allocator's pools held then.
    pub device_reserved_bytes: Option<u64>,
}

//! Who wants to know what a load does meanwhile. The library measures nothing itself.

use std::fmt;

/// What a load is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Reading the index, and laying it beside the module.
    Open,
    /// Taking memory for the parameters.
    Materialise,
    /// Reading their bytes, and sending them where they belong.
    Read,
    /// Handing whole tensors to a backend.
    Upload,
    /// Making the tensors the module's parameters.
    Assign,
    /// Letting go of what parameters held before.
    Drop,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Open => "open",
            Phase::Materialise => "materialise",
            Phase::Read => "read",
            Phase::Upload => "upload",
            Phase::Assign => "assign",
            Phase::Drop => "drop",
        })
    }
}

/// Hears of phases, and of memory that no Rust allocator sees. Every method does nothing by default.
pub trait Observe: Send + Sync {
    /// The load enters a phase.
    fn enter(&self, phase: Phase) {
        let _ = phase;
    }

    /// Memory was taken on the device: a good moment to ask how much is in use.
    fn mark(&self) {}

    /// So many bytes were taken from the system past the allocator, as whole pages.
    fn mapped(&self, bytes: usize) {
        let _ = bytes;
    }

    /// They were given back. It may be long after the load: when a tensor is dropped.
    fn unmapped(&self, bytes: usize) {
        let _ = bytes;
    }

    /// So many bytes of the host were locked for a GPU to copy from, past the allocator. What CubeCL locks for itself is not told.
    fn locked(&self, bytes: usize) {
        let _ = bytes;
    }

    /// They were given back.
    fn unlocked(&self, bytes: usize) {
        let _ = bytes;
    }
}

/// Hears of nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observe for Unobserved {}

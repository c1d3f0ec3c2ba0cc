//! What others count of a device's memory, as the recorder and the sampler are told it.

/// Memory of a device, as its allocator counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Held by live tensors.
    pub in_use_bytes: u64,
    /// Held by the allocator's pools.
    pub reserved_bytes: u64,
}

impl DeviceMemory {
    /// What is held beyond `before`.
    pub fn above(self, before: DeviceMemory) -> DeviceMemory {
        DeviceMemory {
            in_use_bytes: self.in_use_bytes.saturating_sub(before.in_use_bytes),
            reserved_bytes: self.reserved_bytes.saturating_sub(before.reserved_bytes),
        }
    }
}

/// Reads the device's own count, on the thread that loads.
pub type ReadDevice = Box<dyn Fn() -> Option<DeviceMemory>>;
/// Reads a number of bytes that somebody else keeps.
pub type ReadBytes = Box<dyn FnMut() -> Option<u64> + Send>;

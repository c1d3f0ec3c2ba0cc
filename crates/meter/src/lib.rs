//! The instruments: what a load held, and what disturbed it.
//!
//! ```text
//!  before a load    HostLimits::impose, CacheState::establish, touch_free_memory
//!  during it        Recorder   the heap (CountingAllocator), the process (ProcessMemory), the cgroup (CgroupPeak),
//!      │            │          the device (DeviceMemory); a thread that samples them
//!      │            └─▶ Diary ─▶ LastWords    on disk, should the process be ended
//!      ├─ finish() ─▶ Peaks
//!      └─ of another process, from outside: Outside
//!  around it        Disturbances, Panics
//! ```
//!
//! What the platform cannot tell is `None`, never 0. Nothing here knows a framework: a device's memory is read by closures that
//! the caller gives.
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

mod bus_error;
mod cache;
mod cap;
mod device;
mod disturbance;
mod file_size;
mod free_memory;
mod heap;
mod last_words;
mod outside;
mod panics;
mod peaks;
mod process;
mod recorder;
mod sample;
mod sampler;

pub use bus_error::{BusError, tell_bus_errors};
pub use cache::{CacheError, CacheState};
pub use cap::{CapMechanism, Cgroup, CgroupPeak, HostCapError, HostCaps, HostLimits};
pub use device::{DeviceMemory, ReadBytes, ReadDevice};
pub use disturbance::{DisturbanceWatch, Disturbances};
pub use file_size::outlive_file_size_limit;
pub use free_memory::{machine_oom_kills, touch_free_memory};
pub use heap::CountingAllocator;
pub use last_words::{Diary, LastWords, Stage};
pub use outside::Outside;
pub use panics::{Panicked, Panics};
pub use peaks::Peaks;
pub use process::{Process, ProcessMemory};
pub use recorder::{Instruments, Recorder};
pub use sample::{Phase, Sample};

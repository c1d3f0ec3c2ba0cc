//! A CUDA driver and its management library (NVML), simulated, for tests. **No figure that was made with it is ever published.**
//!
//! Real are CubeCL, Burn, libnvrtc and every copy of bytes. Simulated are the GPU's memory, its pools and limits, streams and
//! events, page-locked memory, and what fails. Kernels are compiled and loaded, and not executed: what they would have written
//! is whatever lies there.
//!
//! A program finds it as it finds a driver: `libcuda.so.1` and `libnvidia-ml.so.1` are links to this library in a folder of
//! `LD_LIBRARY_PATH`. What it simulates is said by the variables in `settings.rs`.
//!
//! ```text
//!  settings   what is asked for, from the environment
//!  memory     the device's bytes: in a file of memory that is not mapped, so that they are neither in a heap nor resident
//!  work       streams and events: copies at the call, or at the latest moment that CUDA allows
//!  faults     the nth call of a kind that fails, sticks or hangs
//!  image      what is looked at in a compiled program
//!  driver     the functions of libcuda
//!  management the functions of libnvidia-ml
//! ```

mod driver;
mod faults;
mod image;
mod management;
mod memory;
mod settings;
mod work;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use faults::Faults;
use memory::Memory;
use settings::Settings;
use work::Work;

/// A `CUresult`.
type Code = i32;

const SUCCESS: Code = 0;
const INVALID_VALUE: Code = 1;
const OUT_OF_MEMORY: Code = 2;
const NOT_INITIALIZED: Code = 3;
const NO_DEVICE: Code = 100;
const INVALID_DEVICE: Code = 101;
const INVALID_CONTEXT: Code = 201;
const NO_BINARY_FOR_GPU: Code = 209;
const UNSUPPORTED_PTX_VERSION: Code = 222;
const INVALID_HANDLE: Code = 400;
const NOT_FOUND: Code = 500;
const NOT_READY: Code = 600;
const ILLEGAL_ADDRESS: Code = 700;
const LAUNCH_FAILED: Code = 719;

/// Everything that is simulated in this process.
struct Machine {
    settings: Settings,
    /// Whether `cuInit` was called, which everything else waits for.
    is_initialised: bool,
    faults: Faults,
    memory: Memory,
    work: Work,
    /// Programs that were loaded, by their handles less one.
    images: Vec<image::Image>,
    /// The functions of them: names, by their handles less one.
    functions: Vec<String>,
}

fn machine() -> MutexGuard<'static, Machine> {
    static MACHINE: OnceLock<Mutex<Machine>> = OnceLock::new();
    let machine = MACHINE.get_or_init(|| {
        let settings = Settings::from_environment();
        Mutex::new(Machine {
            faults: Faults::new(&settings.faults),
            memory: Memory::new(&settings),
            work: Work::new(settings.copies_late),
            images: Vec::new(),
            functions: Vec::new(),
            is_initialised: false,
            settings,
        })
    });
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

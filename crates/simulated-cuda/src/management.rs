//! The functions of libnvidia-ml that this workspace calls: what the driver holds for this process.

#![allow(non_snake_case, clippy::missing_safety_doc)]

use std::ffi::{CStr, c_char, c_int, c_uint};

use crate::{driver, machine};

/// An `nvmlReturn_t`.
type Said = c_int;

const DONE: Said = 0;
const NO_SUCH: Said = 6;
const TOO_SHORT: Said = 7;

/// What a context takes of a device beside what is allocated.
const CONTEXT_BYTES: u64 = 300 << 20;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInit_v2() -> Said {
    DONE
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlShutdown() -> Said {
    DONE
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlErrorString(_said: Said) -> *const c_char {
    c"simulated".as_ptr()
}

/// A device's handle is its number, and one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(
    bus: *const c_char,
    device: *mut usize,
) -> Said {
    // SAFETY: the caller's: a text with an end.
    let bus = unsafe { CStr::from_ptr(bus) }.to_string_lossy();
    let mut devices = 0..machine().settings.devices;
    match devices.find(|&one| bus.ends_with(&driver::bus(one))) {
        None => NO_SUCH,
        Some(found) => {
            // SAFETY: the caller's.
            unsafe { device.write(found as usize + 1) };
            DONE
        }
    }
}

/// `nvmlProcessInfo_t`.
#[repr(C)]
pub struct Process {
    number: c_uint,
    bytes: u64,
    instance: c_uint,
    compute_instance: c_uint,
}

/// This process, whether it has opened the device or not: nobody else is on a simulated one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: usize,
    count: *mut c_uint,
    processes: *mut Process,
) -> Said {
    // SAFETY: the caller's.
    let room = unsafe { count.replace(1) };
    if room < 1 || processes.is_null() {
        return TOO_SHORT;
    }
    let used = machine().memory.used(device - 1);
    let own = Process {
        number: std::process::id(),
        bytes: CONTEXT_BYTES + used.reserved.max(used.pool) + used.other,
        instance: c_uint::MAX,
        compute_instance: c_uint::MAX,
    };
    // SAFETY: the caller's: there is room for one.
    unsafe { processes.write(own) };
    DONE
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
pub struct Bytes {
    version: c_uint,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: usize, bytes: *mut Bytes) -> Said {
    let machine = machine();
    let (total, used) = (
        machine.memory.limit(),
        machine.memory.used(device - 1).total(),
    );
    // SAFETY: the caller's.
    let bytes = unsafe { &mut *bytes };
    (bytes.total, bytes.reserved) = (total, 0);
    (bytes.free, bytes.used) = (total - used, used);
    DONE
}

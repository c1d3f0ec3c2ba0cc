//! Staging in page-locked memory, from which a GPU copies by itself. CubeCL 0.10 has some, too, in pages whose size follows
//! the device's memory: it holds 146 MB for a piece of 2 MiB on a GPU with 140 GiB, and gives none back.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::{Mutex, OnceLock, PoisonError};

use burn::tensor::Bytes;
use burn_cuda::CudaDevice;
use cubecl_common::bytes::{AllocationController, AllocationProperty};
use cudarc::driver::{result as driver, sys};
use meter::CountingAllocator;

use super::recycled;

/// Those that nobody uses. A load has a few at a time, all of one or two lengths.
static FREE: Mutex<Vec<Locked>> = Mutex::new(Vec::new());

/// Page-locked memory, counted like the heap's.
struct Locked {
    memory: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it owns its memory, which belongs to no thread.
unsafe impl Send for Locked {}
// SAFETY: as above; what is shared of it is only read.
unsafe impl Sync for Locked {}

impl Locked {
    fn new(device: &CudaDevice, bytes: usize) -> Result<Locked, driver::DriverError> {
        use_context(device)?;
        // SAFETY: what is in it is written below, before anybody reads it.
        let memory = unsafe { driver::malloc_host(bytes, 0)? };
        let memory = NonNull::new(memory.cast::<u8>())
            .ok_or(driver::DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY))?;
        // SAFETY: the driver has given so many bytes.
        unsafe { memory.write_bytes(0, bytes) };
        CountingAllocator::mapped(bytes);
        Ok(Locked { memory, bytes })
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: the driver gave it, and this is its only owner. A driver that refuses keeps it until the process ends.
        let freed = unsafe { driver::free_host(self.memory.as_ptr().cast()) };
        if freed.is_ok() {
            CountingAllocator::unmapped(self.bytes);
        }
    }
}

/// Makes the device's context, which CubeCL has opened, this thread's.
fn use_context(device: &CudaDevice) -> Result<(), driver::DriverError> {
    /// A process has one device.
    static CONTEXT: OnceLock<Result<usize, driver::DriverError>> = OnceLock::new();
    let retained = CONTEXT.get_or_init(|| {
        let device = driver::device::get(device.index as i32)?;
        // SAFETY: the driver has just handed `device` out.
        let context = unsafe { driver::primary_ctx::retain(device)? };
        Ok(context.expose_provenance())
    });
    let context = std::ptr::with_exposed_provenance_mut((*retained)?);
    // SAFETY: the context is retained as long as the process lives.
    unsafe { driver::ctx::set_current(context) }
}

/// Memory that goes back to [`FREE`] when the runtime has done with it.
struct Staging {
    memory: Option<Locked>,
    length: usize,
}

/// A buffer of this length; what is in it is of no meaning. On the heap, where the driver locks no more pages.
pub(super) fn buffer(device: &CudaDevice, bytes: usize) -> Bytes {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let fitting = free.iter().position(|memory| memory.bytes >= bytes);
    let kept = fitting.map(|place| free.swap_remove(place));
    drop(free);
    let memory = match kept.map_or_else(|| Locked::new(device, bytes), Ok) {
        Ok(memory) => memory,
        Err(_) => return recycled::buffer(bytes),
    };
    let staging = Staging {
        memory: Some(memory),
        length: bytes,
    };
    // SAFETY: all of its bytes were written when it was made.
    unsafe { Bytes::from_controller(Box::new(staging), bytes) }
}

/// Frees what is kept: a load has ended.
pub(super) fn release(device: &CudaDevice) -> Result<(), driver::DriverError> {
    use_context(device)?;
    FREE.lock().unwrap_or_else(PoisonError::into_inner).clear();
    Ok(())
}

impl Drop for Staging {
    fn drop(&mut self) {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.extend(self.memory.take());
    }
}

impl Staging {
    fn memory(&self) -> NonNull<u8> {
        self.memory
            .as_ref()
            .expect("it is there until it is dropped")
            .memory
    }
}

impl AllocationController for Staging {
    fn alloc_align(&self) -> usize {
        1
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Pinned
    }

    unsafe fn memory_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: it has at least `length` bytes, this is its only owner, and the caller promises to write none that are not
        // initialised.
        unsafe { std::slice::from_raw_parts_mut(self.memory().as_ptr().cast(), self.length) }
    }

    fn memory(&self) -> &[MaybeUninit<u8>] {
        // SAFETY: it has at least `length` bytes, which nobody writes meanwhile.
        unsafe { std::slice::from_raw_parts(Staging::memory(self).as_ptr().cast(), self.length) }
    }
}

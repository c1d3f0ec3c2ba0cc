//! Staging in page-locked memory, from which a GPU copies by itself. CubeCL 0.10 has some, too, in pages whose size follows
//! the device's memory: it holds 146 MB for a piece of 2 MiB on a GPU with 140 GiB, and gives none back.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Bytes;
use cubecl_common::bytes::{AllocationController, AllocationProperty};
use cudarc::driver::{result as driver, sys};

use crate::Observe;

/// Page-locked memory of one device; what nobody uses is kept until the load has ended.
#[derive(Clone)]
pub(super) struct Buffers(Arc<Home>);

struct Home {
    /// The device's context, which CubeCL has opened, retained for as long as any of its memory lives; where there is one.
    context: Option<usize>,
    device: i32,
    free: Mutex<Vec<Locked>>,
    observer: Arc<dyn Observe>,
}

/// Page-locked memory. It is freed in its home's context.
struct Locked {
    memory: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it owns its memory, which belongs to no thread.
unsafe impl Send for Locked {}
// SAFETY: as above; what is shared of it is only read.
unsafe impl Sync for Locked {}

impl Buffers {
    pub fn new(device: usize, observer: &Arc<dyn Observe>) -> Buffers {
        let retained = || -> Result<usize, driver::DriverError> {
            let device = driver::device::get(device as i32)?;
            // SAFETY: the driver has just handed `device` out.
            let context = unsafe { driver::primary_ctx::retain(device)? };
            Ok(context.expose_provenance())
        };
        Buffers(Arc::new(Home {
            context: retained().ok(),
            device: device as i32,
            free: Mutex::default(),
            observer: Arc::clone(observer),
        }))
    }

    /// A buffer of this length; what is in it is of no meaning. `None` where the driver locks no more pages.
    pub fn buffer(&self, bytes: usize) -> Option<Bytes> {
        let home = &self.0;
        let mut free = home.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = free.iter().position(|memory| memory.bytes >= bytes);
        let kept = fitting.map(|place| free.swap_remove(place));
        drop(free);
        let memory = match kept {
            Some(memory) => memory,
            None => {
                // What is kept is shorter, and would stay beside this one, which serves for short pieces as well.
                home.release();
                home.lock_pages(bytes).ok()?
            }
        };
        let staging = Buffer {
            memory: Some(memory),
            length: bytes,
            home: Arc::clone(home),
        };
        // SAFETY: all of its bytes were written when it was made.
        Some(unsafe { Bytes::from_controller(Box::new(staging), bytes) })
    }

    /// Frees what is kept: a load has ended.
    pub fn release(&self) {
        self.0.release();
    }
}

impl Home {
    /// Makes the context this thread's.
    fn enter(&self) -> Result<(), driver::DriverError> {
        let lost = driver::DriverError(sys::CUresult::CUDA_ERROR_INVALID_CONTEXT);
        let context = std::ptr::with_exposed_provenance_mut(self.context.ok_or(lost)?);
        // SAFETY: the context is retained as long as this lives.
        unsafe { driver::ctx::set_current(context) }
    }

    fn lock_pages(&self, bytes: usize) -> Result<Locked, driver::DriverError> {
        self.enter()?;
        // SAFETY: what is in it is written below, before anybody reads it.
        let memory = unsafe { driver::malloc_host(bytes, 0)? };
        let memory = NonNull::new(memory.cast::<u8>())
            .ok_or(driver::DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY))?;
        // SAFETY: the driver has given so many bytes.
        unsafe { memory.write_bytes(0, bytes) };
        self.observer.locked(bytes);
        Ok(Locked { memory, bytes })
    }

    fn release(&self) {
        let free = std::mem::take(&mut *self.free.lock().unwrap_or_else(PoisonError::into_inner));
        if self.enter().is_err() {
            return;
        }
        for memory in free {
            // SAFETY: the driver gave it, and nobody else has it. A driver that refuses keeps it until the process ends.
            if unsafe { driver::free_host(memory.memory.as_ptr().cast()) }.is_ok() {
                self.observer.unlocked(memory.bytes);
            }
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.release();
        if self.context.is_some()
            && let Ok(device) = driver::device::get(self.device)
        {
            // SAFETY: retained once, by `new`; all of its memory is freed.
            let _ = unsafe { driver::primary_ctx::release(device) };
        }
    }
}

/// Memory that goes home when the runtime has done with it.
struct Buffer {
    memory: Option<Locked>,
    length: usize,
    home: Arc<Home>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self
            .home
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        free.extend(self.memory.take());
    }
}

impl Buffer {
    fn memory(&self) -> NonNull<u8> {
        self.memory
            .as_ref()
            .expect("it is there until it is dropped")
            .memory
    }
}

impl AllocationController for Buffer {
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
        unsafe { std::slice::from_raw_parts(Buffer::memory(self).as_ptr().cast(), self.length) }
    }
}

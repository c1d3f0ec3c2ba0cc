//! Page-locked memory, from which a GPU copies by itself. CubeCL 0.10 has some, too, in pages whose size follows the device's memory:
//! it holds 146 MB for a piece of 2 MiB on a GPU with 140 GiB, and gives none back.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Bytes;
use cubecl_common::bytes::{AllocationController, AllocationProperty};
use cudarc::driver::{result as driver, sys};

use super::copies::Context;
use crate::Observe;

/// Page-locked memory of one device; what nobody uses is kept until the load has ended.
#[derive(Clone)]
pub(super) struct Locked(Arc<Home>);

struct Home {
    context: Context,
    kept: Mutex<Kept>,
    observer: Arc<dyn Observe>,
}

#[derive(Default)]
struct Kept {
    free: Vec<Pages>,
    /// Locked, free or not.
    bytes: usize,
    /// Whether the driver has refused to lock any.
    is_refused: bool,
}

/// Page-locked memory. It is freed in its home's context.
struct Pages {
    memory: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it owns its memory, which belongs to no thread.
unsafe impl Send for Pages {}
// SAFETY: as above; what is shared of it is only read.
unsafe impl Sync for Pages {}

impl Locked {
    pub fn new(context: Context, observer: &Arc<dyn Observe>) -> Locked {
        Locked(Arc::new(Home {
            context,
            kept: Mutex::default(),
            observer: Arc::clone(observer),
        }))
    }

    pub fn is_refused(&self) -> bool {
        self.0.kept().is_refused
    }

    /// A buffer of this length; what is in it is of no meaning. `None` where no more than `most` bytes may be locked together, or the
    /// driver locks none.
    pub fn buffer(&self, bytes: usize, most: usize) -> Option<Bytes> {
        let home = &self.0;
        let mut kept = home.kept();
        let pages = match kept.free.iter().position(|pages| pages.bytes >= bytes) {
            Some(place) => kept.free.swap_remove(place),
            None => {
                // What is kept is shorter, and would stay beside this one, which serves for short pieces as well.
                home.free(&mut kept);
                if kept.bytes.saturating_add(bytes) > most {
                    return None;
                }
                match home.lock(bytes) {
                    Ok(pages) => {
                        kept.bytes += bytes;
                        pages
                    }
                    Err(_) => {
                        kept.is_refused = true;
                        return None;
                    }
                }
            }
        };
        drop(kept);
        let buffer = Buffer {
            pages: Some(pages),
            length: bytes,
            home: Arc::clone(home),
        };
        // SAFETY: all of its bytes were written when it was made.
        Some(unsafe { Bytes::from_controller(Box::new(buffer), bytes) })
    }

    /// Frees what is kept: a load has ended.
    pub fn release(&self) {
        self.0.free(&mut self.0.kept());
    }
}

impl Home {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self, bytes: usize) -> Result<Pages, driver::DriverError> {
        // SAFETY: what is in it is written below, before anybody reads it.
        let memory = self
            .context
            .within(|| unsafe { driver::malloc_host(bytes, 0) })?;
        let memory = NonNull::new(memory.cast::<u8>())
            .ok_or(driver::DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY))?;
        // SAFETY: the driver has given so many bytes.
        unsafe { memory.write_bytes(0, bytes) };
        self.observer.locked(bytes);
        Ok(Pages { memory, bytes })
    }

    fn free(&self, kept: &mut Kept) {
        if kept.free.is_empty() {
            return;
        }
        // A driver that refuses keeps them until the process ends.
        let _ = self.context.within(|| {
            for pages in kept.free.drain(..) {
                // SAFETY: the driver gave it, and nobody else has it.
                if unsafe { driver::free_host(pages.memory.as_ptr().cast()) }.is_ok() {
                    kept.bytes -= pages.bytes;
                    self.observer.unlocked(pages.bytes);
                }
            }
            Ok(())
        });
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.free(&mut self.kept());
    }
}

/// Memory that goes home when its copy is made.
struct Buffer {
    pages: Option<Pages>,
    length: usize,
    home: Arc<Home>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.kept().free.extend(self.pages.take());
    }
}

impl Buffer {
    fn memory(&self) -> NonNull<u8> {
        let pages = self.pages.as_ref();
        pages.expect("they are there until it is dropped").memory
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

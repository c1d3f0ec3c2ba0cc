//! Staging buffers that are used again: a fresh one for each piece would be touched for the first time each time, page by
//! page, which takes as long as reading it.

use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Bytes;
use cubecl_common::bytes::{AllocationController, AllocationProperty};

/// More than a load has in flight would be kept for nothing.
const MOST_FREE: usize = 16;

/// Those that nobody uses. A load has a few at a time, all of one or two lengths.
#[derive(Default, Clone)]
pub(super) struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// Memory that goes back when the runtime has done with it.
struct Recycled {
    memory: Vec<u8>,
    length: usize,
    home: Buffers,
}

impl Buffers {
    /// A buffer of this length; what is in it is of no meaning.
    pub fn buffer(&self, bytes: usize) -> Bytes {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = free.iter().position(|memory| memory.len() >= bytes);
        let memory = match fitting {
            Some(place) => free.swap_remove(place),
            None => vec![0; bytes],
        };
        drop(free);
        let recycled = Recycled {
            memory,
            length: bytes,
            home: self.clone(),
        };
        // SAFETY: all bytes of a vector are initialised.
        unsafe { Bytes::from_controller(Box::new(recycled), bytes) }
    }

    /// Frees what is kept: a load has ended.
    pub fn release(&self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free = Vec::new();
    }
}

impl Drop for Recycled {
    fn drop(&mut self) {
        let mut free = self
            .home
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if free.len() < MOST_FREE {
            free.push(std::mem::take(&mut self.memory));
        }
    }
}

impl AllocationController for Recycled {
    fn alloc_align(&self) -> usize {
        1
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        let bytes = &mut self.memory[..self.length];
        // SAFETY: initialised bytes are `MaybeUninit` bytes, and the caller promises to write none that are not.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
    }

    fn memory(&self) -> &[MaybeUninit<u8>] {
        let bytes = &self.memory[..self.length];
        // SAFETY: initialised bytes are `MaybeUninit` bytes.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_is_dropped_is_used_again_until_all_are_released() {
        let buffers = Buffers::default();
        let mut first = buffers.buffer(4096);
        first.fill(7);
        let address = first.as_ptr();
        drop(first);
        let second = buffers.buffer(100);
        assert_eq!((second.as_ptr(), second.len()), (address, 100));
        drop(second);
        buffers.release();
        assert!(buffers.free.lock().unwrap().is_empty());
    }
}

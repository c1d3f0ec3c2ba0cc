//! Memory on the host: fresh, in huge pages where the kernel has any, or a mapped file's. The first touch of memory costs one
//! fault for each page, which takes longer than to copy what goes there; with pages of 2 MiB there are 512 times fewer.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Bytes;
use checkpoint::PrivateMap;
use cubecl_common::bytes::{AllocationController, AllocationProperty};

use super::{Fill, Finished, Staging};
use crate::{Error, Observe};

/// Memory that becomes a tensor's as it is, or is handed to a backend whole.
pub(crate) struct HostFill {
    memory: Bytes,
}

impl HostFill {
    pub fn new(bytes: usize, observer: &Arc<dyn Observe>) -> HostFill {
        HostFill {
            memory: zeroed(bytes, observer),
        }
    }
}

impl Fill for HostFill {
    fn memory(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.memory)
    }

    fn staging(&self, bytes: usize, _all: Staging) -> Bytes {
        heap(bytes)
    }

    fn write(&mut self, offset_bytes: u64, piece: Bytes) -> Result<(), Error> {
        let start = offset_bytes as usize;
        self.memory[start..start + piece.len()].copy_from_slice(&piece);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Finished, Error> {
        Ok(Finished::Host(self.memory))
    }
}

/// Zeroed memory of this length, none of it touched yet.
fn zeroed(bytes: usize, observer: &Arc<dyn Observe>) -> Bytes {
    #[cfg(target_os = "linux")]
    if let Some(pages) = huge::Pages::new(bytes, observer) {
        // SAFETY: all bytes of fresh pages are zero.
        return unsafe { Bytes::from_controller(Box::new(pages), bytes) };
    }
    let _ = observer;
    heap(bytes)
}

/// Zeroed memory of the allocator's, aligned for any element. (`Bytes::from_bytes_vec` would copy it for its alignment:
/// cubecl-common 0.10.)
pub(crate) fn heap(bytes: usize) -> Bytes {
    let memory = Heap {
        memory: vec![0; bytes.div_ceil(8)],
        bytes,
    };
    // SAFETY: all bytes of a vector of integers are initialised.
    unsafe { Bytes::from_controller(Box::new(memory), bytes) }
}

/// Has the kernel make the pages in this range of addresses, as a write to each would; what stands there stays. Returns whether
/// it could: before Linux 5.14, and elsewhere, nobody can.
pub(crate) fn touch(addresses: Range<usize>) -> bool {
    #[cfg(target_os = "linux")]
    {
        let page = rustix::param::page_size();
        let start = addresses.start.next_multiple_of(page);
        let Some(bytes) = (addresses.end / page * page).checked_sub(start) else {
            return true;
        };
        let start = std::ptr::without_provenance_mut(start);
        // SAFETY: no byte is changed, whatever is mapped there; where nothing is, the kernel says so.
        unsafe { rustix::mm::madvise(start, bytes, rustix::mm::Advice::LinuxPopulateWrite) }.is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = addresses;
        false
    }
}

struct Heap {
    memory: Vec<u64>,
    bytes: usize,
}

impl AllocationController for Heap {
    fn alloc_align(&self) -> usize {
        align_of::<u64>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the vector has at least so many bytes; the caller promises to write no uninitialised ones.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), self.bytes) }
    }

    fn memory(&self) -> &[MaybeUninit<u8>] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), self.bytes) }
    }
}

/// A mapped file's pages as Burn's memory.
pub(crate) fn over_map(map: PrivateMap) -> Bytes {
    let bytes = map.bytes().len();
    // SAFETY: all bytes of a map are initialised.
    unsafe { Bytes::from_controller(Box::new(OverMap(map)), bytes) }
}

struct OverMap(PrivateMap);

impl AllocationController for OverMap {
    /// Of the first element; the map itself begins at a page.
    fn alloc_align(&self) -> usize {
        1 << self.0.bytes().as_ptr().addr().trailing_zeros().min(12)
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        let bytes = self.0.bytes_mut();
        // SAFETY: initialised bytes are `MaybeUninit` bytes, and the caller promises to write none that are not.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
    }

    fn memory(&self) -> &[MaybeUninit<u8>] {
        let bytes = self.0.bytes();
        // SAFETY: initialised bytes are `MaybeUninit` bytes.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
    }
}

#[cfg(target_os = "linux")]
mod huge {
    use std::ptr::NonNull;

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    use super::{AllocationController, AllocationProperty, Arc, MaybeUninit, Observe};

    /// Of x86-64, and of AArch64 with pages of 4 KiB.
    const HUGE_PAGE_BYTES: usize = 2 << 20;

    /// Whole pages of the process's own, beginning at a huge page's boundary.
    pub(super) struct Pages {
        start: NonNull<u8>,
        bytes: usize,
        observer: Arc<dyn Observe>,
    }

    // SAFETY: the memory is the value's own, and reached through it alone.
    unsafe impl Send for Pages {}
    // SAFETY: as above.
    unsafe impl Sync for Pages {}

    impl Pages {
        /// `None` for what is smaller than a huge page, and where the system gives no memory: then the allocator is to say so.
        pub(super) fn new(bytes: usize, observer: &Arc<dyn Observe>) -> Option<Pages> {
            if bytes < HUGE_PAGE_BYTES {
                return None;
            }
            let mapped = bytes
                .checked_next_multiple_of(rustix::param::page_size())?
                .checked_add(HUGE_PAGE_BYTES)?;
            let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
            // SAFETY: a new map, at a place that the kernel chooses.
            let map =
                unsafe { mmap_anonymous(std::ptr::null_mut(), mapped, access, flags) }.ok()?;
            let map = NonNull::new(map.cast::<u8>())?;
            let before = map.align_offset(HUGE_PAGE_BYTES);
            // SAFETY: inside the map, which is longer by one huge page.
            let start = unsafe { map.add(before) };
            let pages = Pages {
                start,
                bytes,
                observer: Arc::clone(observer),
            };
            let end = before + pages.mapped_bytes();
            // Address space counts where it is limited. What stays mapped if this fails does no harm.
            for (place, surplus) in [(0, before), (end, mapped - end)] {
                if surplus > 0 {
                    // SAFETY: a part of the map that nobody knows of yet.
                    let _ = unsafe { munmap(map.add(place).as_ptr().cast(), surplus) };
                }
            }
            // Only whole ones: at the end, memory is taken as it is touched.
            let whole = bytes / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
            // SAFETY: inside the map. A kernel without huge pages refuses, and gives small ones.
            let _ = unsafe { madvise(start.as_ptr().cast(), whole, Advice::LinuxHugepage) };
            pages.observer.mapped(bytes);
            Some(pages)
        }

        fn mapped_bytes(&self) -> usize {
            self.bytes.next_multiple_of(rustix::param::page_size())
        }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            // SAFETY: mapped by `new`, and nobody has a reference to it any more.
            let _ = unsafe { munmap(self.start.as_ptr().cast(), self.mapped_bytes()) };
            self.observer.unmapped(self.bytes);
        }
    }

    impl AllocationController for Pages {
        fn alloc_align(&self) -> usize {
            HUGE_PAGE_BYTES
        }

        fn property(&self) -> AllocationProperty {
            AllocationProperty::Other
        }

        unsafe fn memory_mut(&mut self) -> &mut [MaybeUninit<u8>] {
            // SAFETY: mapped, and borrowed as the value is; the caller promises to write no uninitialised bytes.
            unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.bytes) }
        }

        fn memory(&self) -> &[MaybeUninit<u8>] {
            // SAFETY: as above.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unobserved;

    #[test]
    fn memory_that_is_touched_ahead_holds_what_stood_there() {
        let observer: Arc<dyn Observe> = Arc::new(Unobserved);
        let mut memory = zeroed((6 << 20) + 5, &observer);
        memory.fill(7);
        let start = memory.as_ptr().addr();
        touch(start..start + memory.len());
        assert!(memory.iter().all(|&byte| byte == 7));
        // Less than a page, and what is no memory at all.
        assert!(touch(start + 1..start + 9) || !cfg!(target_os = "linux"));
        assert!(!touch(0..4 << 20));
    }

    #[test]
    fn fresh_memory_is_zero_of_the_length_asked_for_and_writable_to_its_end() {
        let observer: Arc<dyn Observe> = Arc::new(Unobserved);
        for bytes in [0, 1, 4, 4096, (2 << 20) - 4, 2 << 20, (5 << 20) + 3] {
            let mut memory = zeroed(bytes, &observer);
            assert_eq!(memory.len(), bytes);
            assert!(memory.iter().all(|&byte| byte == 0));
            memory.fill(7);
            assert!(memory.iter().all(|&byte| byte == 7));
            assert!(memory.as_ptr().addr().is_multiple_of(8));
        }
    }
}

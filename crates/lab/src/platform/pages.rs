//! Fresh host memory for large tensors, in huge pages where the kernel has any. The first touch of memory costs one fault for
//! each page, which takes longer than to copy what goes there; with pages of 2 MiB there are 512 times fewer.

use std::mem::MaybeUninit;

use burn::tensor::Bytes;

/// Zeroed memory of this length, none of it touched yet.
pub(super) fn zeroed(bytes: usize, element_bytes: usize) -> Bytes {
    #[cfg(target_os = "linux")]
    if let Some(pages) = huge::Pages::new(bytes) {
        // SAFETY: all bytes of fresh pages are zero.
        return unsafe { Bytes::from_controller(Box::new(pages), bytes) };
    }
    match element_bytes {
        2 => Bytes::from_elems(vec![0u16; bytes / 2]),
        _ => Bytes::from_elems(vec![0u32; bytes / 4]),
    }
}

#[cfg(target_os = "linux")]
mod huge {
    use std::ptr::NonNull;

    use cubecl_common::bytes::{AllocationController, AllocationProperty};
    use meter::CountingAllocator;
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    use super::MaybeUninit;

    /// Of x86-64, and of AArch64 with pages of 4 KiB.
    const HUGE_PAGE_BYTES: usize = 2 << 20;

    /// Whole pages of the process's own, beginning at a huge page's boundary.
    pub(super) struct Pages {
        start: NonNull<u8>,
        bytes: usize,
    }

    // SAFETY: the memory is the value's own, and reached through it alone.
    unsafe impl Send for Pages {}
    // SAFETY: as above.
    unsafe impl Sync for Pages {}

    impl Pages {
        /// `None` for what is smaller than a huge page, and where the system gives no memory: then the allocator is to say so.
        pub(super) fn new(bytes: usize) -> Option<Pages> {
            if bytes < HUGE_PAGE_BYTES {
                return None;
            }
            let mapped = bytes
                .next_multiple_of(rustix::param::page_size())
                .checked_add(HUGE_PAGE_BYTES)?;
            let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
            // SAFETY: a new map, at a place that the kernel chooses.
            let map =
                unsafe { mmap_anonymous(std::ptr::null_mut(), mapped, access, flags) }.ok()?;
            let map = NonNull::new(map.cast::<u8>())?;
            let before = map.align_offset(HUGE_PAGE_BYTES);
            // SAFETY: inside the map, which is longer by one huge page.
            let start = unsafe { map.add(before) };
            let pages = Pages { start, bytes };
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
            CountingAllocator::mapped(bytes);
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
            CountingAllocator::unmapped(self.bytes);
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

    #[test]
    fn fresh_memory_is_zero_of_the_length_asked_for_and_writable_to_its_end() {
        for bytes in [4, 4096, (2 << 20) - 4, 2 << 20, (5 << 20) + 4] {
            let mut memory = zeroed(bytes, 4);
            assert_eq!(memory.len(), bytes);
            assert!(memory.iter().all(|&byte| byte == 0));
            memory.fill(7);
            assert!(memory.iter().all(|&byte| byte == 7));
            assert!(memory.as_ptr().addr().is_multiple_of(4));
        }
        assert_eq!(zeroed(6, 2).len(), 6);
    }
}

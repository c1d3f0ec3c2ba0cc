//! The exact host instrument: an allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

static CURRENT_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);
static IS_STOPPED: AtomicBool = AtomicBool::new(false);

/// The system's allocator, counting the bytes of every Rust allocation and their peak.
///
/// Install it with `#[global_allocator]` in the binary that is to be measured. It sees neither mapped
/// files nor what C libraries (a GPU driver, say) allocate for themselves. About 16 ns for an
/// allocation and its release together.
pub struct CountingAllocator;

impl CountingAllocator {
    /// Bytes allocated now.
    pub fn current_bytes() -> u64 {
        CURRENT_BYTES.load(Relaxed) as u64
    }

    /// The most bytes allocated at once since [`CountingAllocator::reset_peak`].
    pub fn peak_bytes() -> u64 {
        PEAK_BYTES.load(Relaxed) as u64
    }

    /// Starts the peak over from what is allocated now.
    pub fn reset_peak() {
        PEAK_BYTES.store(CURRENT_BYTES.load(Relaxed), Relaxed);
    }

    /// Whether this program's allocations go through the counter.
    pub fn is_installed() -> bool {
        // Any program has allocated something by the time it can ask.
        PEAK_BYTES.load(Relaxed) > 0
    }

    /// Counts no more, for good: to measure what counting costs.
    pub fn stop() {
        IS_STOPPED.store(true, Relaxed);
        PEAK_BYTES.store(0, Relaxed);
    }

    /// Counts memory that a program maps itself where it would ask the allocator.
    pub fn mapped(bytes: usize) {
        if Self::is_installed() {
            Self::grow(bytes);
        }
    }

    /// The end of what [`CountingAllocator::mapped`] counted.
    pub fn unmapped(bytes: usize) {
        if Self::is_installed() {
            Self::shrink(bytes);
        }
    }

    fn grow(bytes: usize) {
        if IS_STOPPED.load(Relaxed) {
            return;
        }
        let current = CURRENT_BYTES.fetch_add(bytes, Relaxed) + bytes;
        PEAK_BYTES.fetch_max(current, Relaxed);
    }

    fn shrink(bytes: usize) {
        if IS_STOPPED.load(Relaxed) {
            return;
        }
        CURRENT_BYTES.fetch_sub(bytes, Relaxed);
    }
}

// SAFETY: every call is passed on to the system's allocator as it came; the counters do not touch the
// memory.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those of `System`.
        let pointer = unsafe { System.alloc(layout) };
        if !pointer.is_null() {
            Self::grow(layout.size());
        }
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let pointer = unsafe { System.alloc_zeroed(layout) };
        if !pointer.is_null() {
            Self::grow(layout.size());
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) };
        Self::shrink(layout.size());
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        // SAFETY: as above.
        let moved = unsafe { System.realloc(pointer, layout, new_bytes) };
        if !moved.is_null() {
            match new_bytes.checked_sub(layout.size()) {
                Some(more) => Self::grow(more),
                None => Self::shrink(layout.size() - new_bytes),
            }
        }
        moved
    }
}

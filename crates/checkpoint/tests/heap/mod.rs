//! What a piece of work takes of the heap. In a test binary of its own: the allocator counts everything that happens in the
//! process.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What the work returns, and the most bytes that it held at once, beside what was held before. Where several tests run at once,
/// theirs are in it.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, u64) {
    // The guard: an allocator that does not count would find every promise kept.
    assert!(ALLOCATOR.current_usage() > 0, "nothing is counted");
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = work();
    let peak = ALLOCATOR.peak_usage().saturating_sub(before);
    (result, peak as u64)
}

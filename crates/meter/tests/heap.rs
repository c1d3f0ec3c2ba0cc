//! The exact instruments, against allocations of known size. In a program of its own, without a test runner: the allocator
//! counts everything that happens in the process.

use std::hint::black_box;

use meter::{CountingAllocator, Process, ProcessMemory};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const MIB: usize = 1 << 20;

fn peak_of(work: impl FnOnce()) -> u64 {
    let before = CountingAllocator::current_bytes();
    CountingAllocator::reset_peak();
    work();
    CountingAllocator::peak_bytes() - before
}

fn main() {
    the_instruments_see_known_allocations_to_the_byte_and_to_the_page();
    println!("the_instruments_see_known_allocations_to_the_byte_and_to_the_page ... ok");
}

fn the_instruments_see_known_allocations_to_the_byte_and_to_the_page() {
    assert!(CountingAllocator::is_installed());

    // To the byte, also for what is gone at once.
    assert_eq!(
        peak_of(|| drop(black_box(vec![1u8; 3 * MIB]))),
        3 * MIB as u64
    );
    let two = || {
        let first = black_box(vec![0u8; MIB]);
        drop(black_box(vec![0u8; 2 * MIB]));
        drop(first);
    };
    assert_eq!(peak_of(two), 3 * MIB as u64);
    let grow = || {
        let mut vector = black_box(Vec::<u8>::with_capacity(MIB));
        vector.reserve_exact(5 * MIB);
        vector.shrink_to(2 * MIB);
        drop(black_box(vector));
    };
    assert_eq!(peak_of(grow), 5 * MIB as u64);
    assert_eq!(peak_of(|| ()), 0);

    // Resident memory: the kernel's own mark. Elsewhere than on Linux it is absent.
    let Some(before) = ProcessMemory::now() else {
        return;
    };
    assert!(ProcessMemory::reset_peak(Process::Own));
    drop(black_box(vec![1u8; 64 * MIB]));
    let after = ProcessMemory::now().unwrap();
    let seen = after.rss_peak_bytes - before.rss_bytes;
    assert!(
        seen.abs_diff(64 * MIB as u64) < MIB as u64,
        "{seen} bytes for a spike of 64 MiB"
    );
    // Resetting works: the spike is gone from the mark.
    assert!(ProcessMemory::reset_peak(Process::Own));
    assert!(ProcessMemory::now().unwrap().rss_peak_bytes < after.rss_peak_bytes - 32 * MIB as u64);
    assert!(ProcessMemory::bytes_read(Process::Own).unwrap() > 0);
}

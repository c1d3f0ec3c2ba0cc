//! The instruments against each other: known patterns within a recorded load, and what each instrument says of them. In a
//! program of its own, without a test runner: the allocator counts everything that happens in the process.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meter::{
    CountingAllocator, DeviceMemory, Diary, Instruments, LastWords, Peaks, Phase, Recorder, Stage,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const MIB: u64 = 1 << 20;

/// How far the kernel's mark of the resident set may be off: it adds up what it counts for each CPU in batches of
/// 64 pages. And the pages of this program that a pattern touches first.
fn slack_bytes() -> u64 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    64 * 4096 * cpus as u64 + MIB / 4
}

/// Records a pattern as a phase of reading.
fn record(instruments: Instruments<'_>, pattern: impl FnOnce(&Recorder)) -> Peaks {
    let mut recorder = Recorder::start(instruments);
    recorder.enter(Phase::Read);
    pattern(&recorder);
    recorder.enter(Phase::Assign);
    recorder.finish()
}

/// Without a device that has memory of its own.
fn on_the_host(diary: Option<Arc<Diary>>) -> Instruments<'static> {
    Instruments {
        read_device: Box::new(|| None),
        read_driver: None,
        cgroup: None,
        diary,
    }
}

/// Filled at once, and gone two milliseconds later.
fn spike(_: &Recorder) {
    let spike = black_box(vec![1u8; (64 * MIB) as usize]);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2) {
        black_box(&spike);
    }
}

fn main() {
    every_instrument_sees_what_it_says_it_sees();
    println!("every_instrument_sees_what_it_says_it_sees ... ok");
}

fn every_instrument_sees_what_it_says_it_sees() {
    // The first record of a process sets things up that stay.
    record(on_the_host(None), |_| ());
    let nothing = record(on_the_host(None), |_| ());
    assert_eq!(nothing.heap_peak_bytes, Some(0));
    // Without a device of its own nothing is said of one.
    assert_eq!(nothing.device_in_use_peak_bytes, None);
    assert_eq!(nothing.device_peak_phase, None);

    // A spike of two milliseconds: the exact instruments see all of it, however short.
    let spiked = record(on_the_host(None), spike);
    assert_eq!(spiked.heap_peak_bytes, Some(64 * MIB), "to the byte");
    assert_eq!(spiked.host_peak_phase, Some(Phase::Read));
    if let Some(resident) = spiked.rss_peak_bytes {
        let apart = resident.abs_diff(64 * MIB);
        assert!(apart <= slack_bytes(), "resident {resident} for 64 MiB");
        // The sampled one may miss it, and never sees more than there was.
        let sampled = spiked.anon_peak_bytes.unwrap();
        assert!(
            sampled <= resident,
            "sampled {sampled}, resident {resident}"
        );
        let mut samples = spiked.timeline.iter();
        assert!(samples.all(|sample| sample.host_anon_bytes <= resident));
    }

    // A map of which half is touched: file pages, no heap, and the kernel's mark holds them.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![1; (64 * MIB) as usize]).unwrap();
    file.as_file().sync_all().unwrap();
    let touched = record(on_the_host(None), |_| {
        // SAFETY: nobody writes to the file any more.
        let map = unsafe { memmap2::Mmap::map(file.as_file()) }.expect("a file can be mapped");
        let touched = map[..map.len() / 2].iter().step_by(4096);
        black_box(touched.map(|&byte| u64::from(byte)).sum::<u64>());
    });
    let heap = touched.heap_peak_bytes.unwrap();
    assert!(heap < MIB / 64, "a map is no heap: {heap}");
    if let Some(resident) = touched.rss_peak_bytes {
        let apart = resident.abs_diff(32 * MIB);
        assert!(apart <= slack_bytes(), "resident {resident} for 32 MiB");
        let sampled = touched.file_peak_bytes.unwrap();
        assert!(sampled <= 32 * MIB + slack_bytes(), "file pages {sampled}");
    }

    // A device's own count is read at the marks: what rose and fell between two of them is missed.
    let in_use = Arc::new(AtomicU64::new(MIB));
    let count = Arc::clone(&in_use);
    let read_device = move || {
        Some(DeviceMemory {
            in_use_bytes: count.load(Ordering::SeqCst),
            reserved_bytes: 2 * count.load(Ordering::SeqCst),
        })
    };
    let instruments = Instruments {
        read_device: Box::new(read_device),
        ..on_the_host(None)
    };
    let on_device = record(instruments, |recorder| {
        in_use.store(33 * MIB, Ordering::SeqCst);
        recorder.mark();
        in_use.store(65 * MIB, Ordering::SeqCst);
        in_use.store(MIB, Ordering::SeqCst);
    });
    assert_eq!(on_device.device_in_use_peak_bytes, Some(32 * MIB));
    assert_eq!(on_device.device_reserved_peak_bytes, Some(64 * MIB));
    assert_eq!(on_device.device_peak_phase, Some(Phase::Read));
    assert_eq!(on_device.device_in_use_bytes, Some(0), "at the last mark");

    // What it was doing is on the disk, for whoever outlives it. (Nothing samples where the kernel tells nothing.)
    let words = tempfile::NamedTempFile::new().unwrap();
    let diary = Diary::open(words.path()).map(Arc::new);
    let spiked = record(on_the_host(diary), spike);
    if let Some(end) = spiked.timeline.last() {
        let last = LastWords::read(words.path()).unwrap();
        assert_eq!((last.stage, last.sample), (Stage::Load, Some(*end)));
    }
}

//! The marks of one load: reset before it, read at every step of it, summed up behind it.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use super::sampler::{Sampler, Shared};
use super::{CountingAllocator, Phase, ProcessMemory, Sample};

/// Memory of a device, as its allocator counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Held by live tensors.
    pub in_use_bytes: u64,
    /// Held by the allocator's pools.
    pub reserved_bytes: u64,
}

/// Everything measured of one load, above the baseline.
pub(crate) struct Peaks {
    pub load_seconds: f64,
    pub rss_baseline_bytes: Option<u64>,
    pub heap_peak_bytes: Option<u64>,
    pub rss_peak_bytes: Option<u64>,
    pub anon_peak_bytes: Option<u64>,
    pub file_peak_bytes: Option<u64>,
    pub shared_peak_bytes: Option<u64>,
    pub host_peak_phase: Option<Phase>,
    pub device_in_use_bytes: Option<u64>,
    pub device_in_use_peak_bytes: Option<u64>,
    pub device_reserved_peak_bytes: Option<u64>,
    pub device_peak_phase: Option<Phase>,
    pub bytes_read: Option<u64>,
    pub timeline: Vec<Sample>,
}

type ReadDevice = Box<dyn Fn() -> Option<DeviceMemory>>;

/// Records one load. Its marks are read by the loading thread: CubeCL's memory usage is that of a stream,
/// and a stream is a thread's.
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    read_device: ReadDevice,
    marks: RefCell<Marks>,
    baseline: Baseline,
    sampler: Option<Sampler>,
    start: Instant,
}

struct Baseline {
    heap_bytes: u64,
    /// `None` where the kernel's mark could not be read or reset.
    process: Option<ProcessMemory>,
    device: Option<DeviceMemory>,
    bytes_read: Option<u64>,
}

#[derive(Default)]
struct Marks {
    heap_peak: Option<(u64, Phase)>,
    in_use_peak: Option<(u64, Phase)>,
    in_use: Option<u64>,
    reserved_peak: Option<u64>,
}

impl Recorder {
    /// Takes the baseline, resets the marks, and starts the clock.
    pub fn start(read_device: ReadDevice) -> Recorder {
        let shared = Shared::new(Phase::Open);
        let device = read_device();
        let process = ProcessMemory::now();
        let sampler = process.and_then(|baseline| Sampler::start(Arc::clone(&shared), baseline));
        let process = process.filter(|_| ProcessMemory::reset_peak());
        let bytes_read = ProcessMemory::bytes_read();
        CountingAllocator::reset_peak();
        let recorder = Recorder {
            shared,
            read_device,
            marks: RefCell::default(),
            baseline: Baseline {
                heap_bytes: CountingAllocator::current_bytes(),
                process,
                device,
                bytes_read,
            },
            sampler,
            start: Instant::now(),
        };
        recorder.mark();
        recorder
    }

    /// Reads the marks of the phase that ends, and begins another.
    pub fn enter(&self, phase: Phase) {
        self.mark();
        self.shared.set_phase(phase);
    }

    /// Reads the marks that have no memory of their own (the device's), and says which phase raised
    /// those that have (the heap's).
    pub fn mark(&self) {
        let phase = self.shared.phase();
        let mut marks = self.marks.borrow_mut();
        raise(&mut marks.heap_peak, CountingAllocator::peak_bytes(), phase);
        if let (Some(now), Some(before)) = ((self.read_device)(), self.baseline.device) {
            let in_use = now.in_use_bytes.saturating_sub(before.in_use_bytes);
            let reserved = now.reserved_bytes.saturating_sub(before.reserved_bytes);
            raise(&mut marks.in_use_peak, in_use, phase);
            marks.in_use = Some(in_use);
            marks.reserved_peak = marks.reserved_peak.max(Some(reserved));
            self.shared.set_device_in_use(in_use);
        }
    }

    /// Stops the clock and reads every mark.
    pub fn finish(self) -> Peaks {
        let load_seconds = self.start.elapsed().as_secs_f64();
        self.mark();
        let process = ProcessMemory::now();
        let bytes_read = ProcessMemory::bytes_read();
        let sampled = self.sampler.and_then(Sampler::stop);
        let marks = self.marks.into_inner();
        let counting = CountingAllocator::is_installed();
        Peaks {
            load_seconds,
            rss_baseline_bytes: self.baseline.process.map(|process| process.rss_bytes),
            heap_peak_bytes: marks
                .heap_peak
                .filter(|_| counting)
                .map(|(bytes, _)| bytes - self.baseline.heap_bytes),
            rss_peak_bytes: process
                .zip(self.baseline.process)
                .map(|(now, before)| now.rss_peak_bytes.saturating_sub(before.rss_bytes)),
            anon_peak_bytes: sampled.as_ref().map(|sampled| sampled.anon_peak_bytes),
            file_peak_bytes: sampled.as_ref().map(|sampled| sampled.file_peak_bytes),
            shared_peak_bytes: sampled.as_ref().map(|sampled| sampled.shared_peak_bytes),
            host_peak_phase: marks.heap_peak.filter(|_| counting).map(|(_, phase)| phase),
            device_in_use_bytes: marks.in_use,
            device_in_use_peak_bytes: marks.in_use_peak.map(|(bytes, _)| bytes),
            device_reserved_peak_bytes: marks.reserved_peak,
            device_peak_phase: marks.in_use_peak.map(|(_, phase)| phase),
            bytes_read: bytes_read
                .zip(self.baseline.bytes_read)
                .map(|(now, before)| now.saturating_sub(before)),
            timeline: sampled.map(|sampled| sampled.timeline).unwrap_or_default(),
        }
    }
}

fn raise(peak: &mut Option<(u64, Phase)>, bytes: u64, phase: Phase) {
    if peak.is_none_or(|(highest, _)| bytes > highest) {
        *peak = Some((bytes, phase));
    }
}

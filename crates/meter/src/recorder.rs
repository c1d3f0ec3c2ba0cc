//! The marks of one load: reset before it, read at every step of it, summed up behind it.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use crate::cap::{Cgroup, CgroupPeak};
use crate::device::{DeviceMemory, ReadBytes, ReadDevice};
use crate::heap::CountingAllocator;
use crate::last_words::Diary;
use crate::peaks::Peaks;
use crate::process::{Process, ProcessMemory};
use crate::sample::Phase;
use crate::sampler::{Sampler, Shared};

/// What a load is recorded with, beside the process's own marks.
pub struct Instruments<'a> {
    /// The device's own count, on the loading thread.
    pub read_device: ReadDevice,
    /// What the device's driver holds for this process.
    pub read_driver: Option<ReadBytes>,
    /// The run's own cgroup.
    pub cgroup: Option<&'a Cgroup>,
    /// Where to write what is held, for whoever outlives this process.
    pub diary: Option<Arc<Diary>>,
}

/// Records one load. Its marks are read by the loading thread: CubeCL's memory usage is that of a stream,
/// and a stream is a thread's.
pub struct Recorder {
    shared: Arc<Shared>,
    /// `None` where nothing is to be recorded but the time.
    read_device: Option<ReadDevice>,
    marks: RefCell<Marks>,
    baseline: Baseline,
    cgroup: Option<(CgroupPeak, u64)>,
    sampler: Option<Sampler>,
    start: Instant,
}

#[derive(Default)]
struct Baseline {
    heap_bytes: u64,
    /// `None` where the kernel tells nothing.
    process: Option<ProcessMemory>,
    /// Whether the kernel's mark of the resident set was reset.
    is_rss_peak_reset: bool,
    device: Option<DeviceMemory>,
    bytes_read: Option<u64>,
}

#[derive(Default)]
struct Marks {
    heap_peak: Option<(u64, Phase)>,
    in_use_peak: Option<(u64, Phase)>,
    in_use: Option<u64>,
    reserved_peak: Option<u64>,
    /// The most that was seen at a mark where something was about to be let go.
    process: ProcessMemory,
}

impl Recorder {
    /// Takes the baseline, resets the marks, and starts the clock.
    pub fn start(instruments: Instruments<'_>) -> Recorder {
        let shared = Shared::new(Phase::Open);
        let device = (instruments.read_device)();
        let process = ProcessMemory::now();
        let cgroup = instruments.cgroup.and_then(|cgroup| {
            let usage_bytes = cgroup.usage_bytes()?;
            Some((cgroup.reset_peak()?, usage_bytes))
        });
        let (driver, diary) = (instruments.read_driver, instruments.diary);
        let sampler = process
            .and_then(|baseline| Sampler::start(Arc::clone(&shared), baseline, driver, diary));
        let is_rss_peak_reset = ProcessMemory::reset_peak(Process::Own);
        let bytes_read = ProcessMemory::bytes_read(Process::Own);
        CountingAllocator::reset_peak();
        let recorder = Recorder {
            shared,
            read_device: Some(instruments.read_device),
            marks: RefCell::default(),
            baseline: Baseline {
                heap_bytes: CountingAllocator::current_bytes(),
                process,
                is_rss_peak_reset,
                device,
                bytes_read,
            },
            cgroup,
            sampler,
            start: Instant::now(),
        };
        recorder.mark();
        recorder
    }

    /// Takes the time and nothing else: what measuring costs is the difference. The allocator stops counting.
    pub fn clock() -> Recorder {
        CountingAllocator::stop();
        Recorder {
            shared: Shared::new(Phase::Open),
            read_device: None,
            marks: RefCell::default(),
            baseline: Baseline::default(),
            cgroup: None,
            sampler: None,
            start: Instant::now(),
        }
    }

    /// Reads the marks of the phase that ends, and begins another. Before something is dropped the process's
    /// pages are read, too: the sampler, which may not get a CPU in time, could miss what was held last.
    pub fn enter(&self, phase: Phase) {
        self.mark();
        if phase == Phase::Drop
            && self.read_device.is_some()
            && let Some(now) = ProcessMemory::now()
        {
            let mut marks = self.marks.borrow_mut();
            marks.process = marks.process.highest(now);
        }
        self.shared.set_phase(phase);
    }

    /// Reads the marks that have no memory of their own (the device's), and says which phase raised
    /// those that have (the heap's).
    pub fn mark(&self) {
        let Some(read_device) = &self.read_device else {
            return;
        };
        let phase = self.shared.phase();
        let mut marks = self.marks.borrow_mut();
        raise(&mut marks.heap_peak, CountingAllocator::peak_bytes(), phase);
        if let (Some(now), Some(before)) = (read_device(), self.baseline.device) {
            let held = now.above(before);
            raise(&mut marks.in_use_peak, held.in_use_bytes, phase);
            marks.in_use = Some(held.in_use_bytes);
            marks.reserved_peak = marks.reserved_peak.max(Some(held.reserved_bytes));
            self.shared.set_device(held);
        }
    }

    /// The load has ended: how long it took. What is held is watched on until [`Recorder::finish`].
    pub fn stop_clock(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Reads every mark, once.
    pub fn finish(&mut self) -> Peaks {
        self.mark();
        let process = ProcessMemory::now();
        let cgroup_peak_bytes = self.cgroup.take().and_then(|(mut peak, before)| {
            // The mark may be a little older than the usage: the kernel counts in batches.
            Some(peak.bytes()?.saturating_sub(before))
        });
        let bytes_read = ProcessMemory::bytes_read(Process::Own);
        let sampled = self.sampler.take().and_then(Sampler::stop);
        let marks = self.marks.take();
        let counting = CountingAllocator::is_installed();
        let highest = sampled
            .as_ref()
            .map(|sampled| sampled.highest.highest(marks.process));
        let above = |measure: fn(ProcessMemory) -> u64| {
            let (highest, before) = highest.zip(self.baseline.process)?;
            Some(measure(highest).saturating_sub(measure(before)))
        };
        let is_reset = self.baseline.is_rss_peak_reset;
        let marked = self.baseline.process.filter(|_| is_reset);
        Peaks {
            rss_baseline_bytes: marked.map(|process| process.rss_bytes),
            heap_peak_bytes: marks
                .heap_peak
                .filter(|_| counting)
                .map(|(bytes, _)| bytes - self.baseline.heap_bytes),
            rss_peak_bytes: process.zip(marked).map(|(now, before)| {
                // The kernel's mark lags behind by up to 64 pages of each CPU; what was sampled does not.
                let seen = highest.map_or(0, |highest| highest.rss_bytes);
                let peak = now.rss_peak_bytes.max(seen);
                peak.saturating_sub(before.rss_bytes)
            }),
            anon_peak_bytes: above(|memory| memory.anon_bytes),
            file_peak_bytes: above(|memory| memory.file_bytes),
            shared_peak_bytes: above(|memory| memory.shared_bytes),
            swap_peak_bytes: highest.map(|highest| highest.swap_bytes),
            cgroup_peak_bytes,
            driver_peak_bytes: sampled
                .as_ref()
                .and_then(|sampled| sampled.driver_peak_bytes),
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

//! The sampled host instrument: a thread that looks every few milliseconds.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::device::{DeviceMemory, ReadBytes};
use crate::heap::CountingAllocator;
use crate::last_words::{Diary, LastWords, Stage};
use crate::process::{Process, ProcessMemory, Reader};
use crate::sample::{Phase, Sample};

/// On two cores, loading size small one file per tensor: 2 ms cost 1.5 to 2 % of the time, and 4 ms about 1 %.
pub(crate) const PERIOD: Duration = Duration::from_millis(4);
/// Asking a driver takes longer than asking the kernel: once in so many samples.
const SAMPLES_PER_DRIVER_READING: usize = 8;
/// Room for the samples, taken before the load so that it is not counted in it. When it is full, every
/// other sample is dropped and the period doubles.
pub(crate) const CAPACITY: usize = 1 << 13;
/// A timeline has at most this many samples: each the highest of its slice of time.
const TIMELINE_SAMPLES: usize = 240;
/// Stands for "no device memory of its own".
const ABSENT: u64 = u64::MAX;

/// What the loading thread tells the sampler.
pub(crate) struct Shared {
    phase: AtomicU8,
    device_in_use_bytes: AtomicU64,
    device_reserved_bytes: AtomicU64,
    is_sampling: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    pub fn new(phase: Phase) -> Arc<Shared> {
        Arc::new(Shared {
            phase: AtomicU8::new(phase as u8),
            device_in_use_bytes: AtomicU64::new(ABSENT),
            device_reserved_bytes: AtomicU64::new(ABSENT),
            is_sampling: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        })
    }

    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    pub fn phase(&self) -> Phase {
        Phase::ALL[self.phase.load(Relaxed) as usize]
    }

    pub fn set_device(&self, memory: DeviceMemory) {
        self.device_in_use_bytes.store(memory.in_use_bytes, Relaxed);
        self.device_reserved_bytes
            .store(memory.reserved_bytes, Relaxed);
    }
}

/// What the samples amount to.
pub(crate) struct Sampled {
    /// The highest of each measure, the baseline included.
    pub highest: ProcessMemory,
    /// What the driver held for the process, where it can tell.
    pub driver_peak_bytes: Option<u64>,
    pub timeline: Vec<Sample>,
}

pub(crate) struct Sampler {
    thread: JoinHandle<Sampled>,
    shared: Arc<Shared>,
}

impl Sampler {
    /// Starts sampling, or does not where `/proc` cannot be read.
    pub fn start(
        shared: Arc<Shared>,
        baseline: ProcessMemory,
        read_driver: Option<ReadBytes>,
        diary: Option<Arc<Diary>>,
    ) -> Option<Sampler> {
        let sampling = Sampling {
            reader: Reader::open(Process::Own)?,
            shared: Arc::clone(&shared),
            baseline,
            heap_baseline: CountingAllocator::is_installed().then(CountingAllocator::current_bytes),
            read_driver,
            diary,
            samples: Vec::with_capacity(CAPACITY),
        };
        let thread = std::thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || sampling.run())
            .ok()?;
        // What starting a thread allocates and frees must not fall between baseline and load.
        while !shared.is_sampling.load(Acquire) {
            std::thread::yield_now();
        }
        Some(Sampler { thread, shared })
    }

    pub fn stop(self) -> Option<Sampled> {
        self.shared.stop.store(true, Relaxed);
        self.thread.join().ok()
    }
}

/// What the sampling thread has in its hands.
struct Sampling {
    reader: Reader,
    shared: Arc<Shared>,
    baseline: ProcessMemory,
    heap_baseline: Option<u64>,
    read_driver: Option<ReadBytes>,
    diary: Option<Arc<Diary>>,
    samples: Vec<Sample>,
}

impl Sampling {
    fn run(mut self) -> Sampled {
        let start = Instant::now();
        let mut period = PERIOD;
        let mut highest = ProcessMemory::default();
        let mut driver = None;
        self.shared.is_sampling.store(true, Release);
        for number in 0.. {
            // The order matters: the last sample is taken after the load has ended.
            let stop = self.shared.stop.load(Relaxed);
            if let Some(memory) = self.reader.read() {
                highest = highest.highest(memory);
                if self.samples.len() == CAPACITY {
                    let mut keep = false;
                    self.samples.retain(|_| {
                        keep = !keep;
                        keep
                    });
                    period *= 2;
                }
                let sample = self.sample(start, memory);
                self.samples.push(sample);
                self.write_down(sample);
            }
            if (number % SAMPLES_PER_DRIVER_READING == 0 || stop)
                && let Some(read) = &mut self.read_driver
            {
                driver = driver.max(read());
            }
            if stop {
                break;
            }
            std::thread::sleep(period);
        }
        Sampled {
            highest,
            driver_peak_bytes: driver,
            timeline: thin(&self.samples),
        }
    }

    fn sample(&self, start: Instant, memory: ProcessMemory) -> Sample {
        let device = |bytes: &AtomicU64| Some(bytes.load(Relaxed)).filter(|&bytes| bytes != ABSENT);
        Sample {
            time_seconds: start.elapsed().as_secs_f64(),
            phase: self.shared.phase(),
            host_heap_bytes: self
                .heap_baseline
                .map(|baseline| CountingAllocator::current_bytes().saturating_sub(baseline)),
            host_anon_bytes: memory.anon_bytes.saturating_sub(self.baseline.anon_bytes),
            host_file_bytes: memory.file_bytes.saturating_sub(self.baseline.file_bytes),
            device_in_use_bytes: device(&self.shared.device_in_use_bytes),
            device_reserved_bytes: device(&self.shared.device_reserved_bytes),
        }
    }

    fn write_down(&self, sample: Sample) {
        if let Some(diary) = &self.diary {
            diary.write(&LastWords {
                stage: Stage::Load,
                sample: Some(sample),
            });
        }
    }
}

/// At most [`TIMELINE_SAMPLES`] of the samples, with every peak among them: of each slice the one with
/// the most memory, and the first and the last of all.
pub(crate) fn thin(samples: &[Sample]) -> Vec<Sample> {
    let total = |sample: &Sample| {
        let host = sample.host_heap_bytes.unwrap_or(sample.host_anon_bytes);
        host + sample.host_file_bytes + sample.device_in_use_bytes.unwrap_or(0)
    };
    let [first, middle @ .., last] = samples else {
        return samples.to_vec();
    };
    let slice = middle.len().div_ceil(TIMELINE_SAMPLES - 2).max(1);
    let highest = middle
        .chunks(slice)
        .filter_map(|slice| slice.iter().max_by_key(|s| total(s)));
    let ends = (std::iter::once(first), std::iter::once(last));
    ends.0.chain(highest).chain(ends.1).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_timeline_keeps_its_peak_and_its_ends() {
        let at = |index: usize| Sample {
            time_seconds: index as f64,
            phase: Phase::Read,
            host_heap_bytes: None,
            host_anon_bytes: if index == 777 { 9 } else { 1 },
            host_file_bytes: 0,
            device_in_use_bytes: None,
            device_reserved_bytes: None,
        };
        let samples: Vec<_> = (0..5000).map(at).collect();
        let timeline = thin(&samples);
        assert!(timeline.len() <= TIMELINE_SAMPLES);
        assert_eq!(timeline.iter().map(|s| s.host_anon_bytes).max(), Some(9));
        assert_eq!(timeline[0].time_seconds, 0.0);
        assert_eq!(timeline.last().unwrap().time_seconds, 4999.0);
    }
}

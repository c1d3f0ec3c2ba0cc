//! Another process, watched from outside by the instruments that need nothing of it: the kernel's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::cap::{Cgroup, CgroupPeak};
use crate::disturbance::{DisturbanceWatch, Disturbances};
use crate::peaks::Peaks;
use crate::process::{Process, ProcessMemory, Reader};
use crate::sample::{Phase, Sample};
use crate::sampler::{CAPACITY, PERIOD, thin};

/// A process that is about to load a model.
pub struct Outside {
    process: Process,
    baseline: ProcessMemory,
    is_rss_peak_reset: bool,
    bytes_read: Option<u64>,
    cgroup: Option<(CgroupPeak, u64)>,
    disturbances: DisturbanceWatch,
    stop: Arc<AtomicBool>,
    sampler: JoinHandle<(ProcessMemory, Vec<Sample>)>,
}

impl Outside {
    /// Takes the baseline, resets the marks, and starts sampling; `None` where the process is gone, or this system tells
    /// nothing of others.
    pub fn watch(pid: u32, cgroup: Option<&Cgroup>) -> Option<Outside> {
        let process = Process::Other(pid);
        let baseline = ProcessMemory::of(process)?;
        let mut reader = Reader::open(process)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let start = Instant::now();
        let sampler = std::thread::Builder::new().spawn(move || {
            let (mut highest, mut samples) = (ProcessMemory::default(), Vec::new());
            let mut period = PERIOD;
            loop {
                // The order matters: the last sample is taken after the load has ended.
                let is_last = stopped.load(Relaxed);
                if let Some(memory) = reader.read() {
                    highest = highest.highest(memory);
                    if samples.len() == CAPACITY {
                        samples = samples.into_iter().step_by(2).collect();
                        period *= 2;
                    }
                    samples.push(sample(start, memory, baseline));
                }
                if is_last {
                    return (highest, samples);
                }
                std::thread::sleep(period);
            }
        });
        let sampler = sampler.ok()?;
        Some(Outside {
            process,
            baseline,
            is_rss_peak_reset: ProcessMemory::reset_peak(process),
            bytes_read: ProcessMemory::bytes_read(process),
            cgroup: cgroup.and_then(|cgroup| {
                let usage_bytes = cgroup.usage_bytes()?;
                Some((cgroup.reset_peak()?, usage_bytes))
            }),
            disturbances: Disturbances::watch(process),
            stop,
            sampler,
        })
    }

    /// Reads every mark, and what disturbed the process, while it is still there.
    pub fn finish(self) -> (Peaks, Disturbances) {
        let now = ProcessMemory::of(self.process);
        let cgroup_peak_bytes = self
            .cgroup
            .and_then(|(mut peak, before)| Some(peak.bytes()?.saturating_sub(before)));
        let bytes_read = ProcessMemory::bytes_read(self.process).zip(self.bytes_read);
        self.stop.store(true, Relaxed);
        let sampled = self.sampler.join().ok();
        let highest = sampled.as_ref().map(|(highest, _)| *highest);
        let baseline = self.baseline;
        let above = |measure: fn(ProcessMemory) -> u64| {
            highest.map(|highest| measure(highest).saturating_sub(measure(baseline)))
        };
        let is_reset = self.is_rss_peak_reset;
        let rss_peak = now.zip(highest).filter(|_| is_reset);
        let peaks = Peaks {
            rss_baseline_bytes: is_reset.then_some(baseline.rss_bytes),
            rss_peak_bytes: rss_peak.map(|(now, seen)| {
                let peak = now.rss_peak_bytes.max(seen.rss_bytes);
                peak.saturating_sub(baseline.rss_bytes)
            }),
            anon_peak_bytes: above(|memory| memory.anon_bytes),
            file_peak_bytes: above(|memory| memory.file_bytes),
            cgroup_peak_bytes,
            bytes_read: bytes_read.map(|(now, before)| now.saturating_sub(before)),
            swap_peak_bytes: highest.map(|highest| highest.swap_bytes),
            timeline: sampled.map_or(Vec::new(), |(_, samples)| thin(&samples)),
            ..Peaks::default()
        };
        (peaks, self.disturbances.sum_up())
    }
}

fn sample(start: Instant, memory: ProcessMemory, baseline: ProcessMemory) -> Sample {
    Sample {
        time_seconds: start.elapsed().as_secs_f64(),
        phase: Phase::Read,
        host_heap_bytes: None,
        host_anon_bytes: memory.anon_bytes.saturating_sub(baseline.anon_bytes),
        host_file_bytes: memory.file_bytes.saturating_sub(baseline.file_bytes),
        device_in_use_bytes: None,
        device_reserved_bytes: None,
    }
}

//! What the library tells of a load, to the recorder and the counting allocator.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use featherweight::Observe;
use meter::{CountingAllocator, Peaks, Phase, Recorder};

/// Records a load, once it is told to.
#[derive(Default)]
pub(crate) struct Observed {
    /// One thread loads: the lock is there for the type alone.
    recorder: Mutex<Option<Recorder>>,
    /// Page-locked bytes of the library's, now and at most.
    locked_bytes: AtomicU64,
    locked_peak_bytes: AtomicU64,
}

impl Observed {
    /// Begins to record.
    pub fn start(&self, recorder: Recorder) {
        *self.recorder.lock().unwrap_or_else(PoisonError::into_inner) = Some(recorder);
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Recorder) -> T) -> Option<T> {
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        recorder.as_mut().map(ask)
    }

    /// Says what the run does from here on.
    pub fn enter(&self, phase: Phase) {
        self.with(|recorder| recorder.enter(phase));
    }

    /// Reads the marks.
    pub fn mark(&self) {
        self.with(|recorder| recorder.mark());
    }

    /// Stops the clock: the seconds that the load took.
    pub fn stop_clock(&self) -> f64 {
        self.with(|recorder| recorder.stop_clock())
            .unwrap_or_default()
    }

    /// The most bytes that the library held page-locked at once.
    pub fn locked_peak_bytes(&self) -> u64 {
        self.locked_peak_bytes.load(Ordering::Relaxed)
    }

    /// Sums the marks up.
    pub fn finish(&self) -> Peaks {
        self.with(Recorder::finish).unwrap_or_default()
    }
}

impl Observe for Observed {
    fn enter(&self, phase: featherweight::Phase) {
        Observed::enter(
            self,
            match phase {
                featherweight::Phase::Open => Phase::Open,
                featherweight::Phase::Materialise => Phase::Materialise,
                featherweight::Phase::Read => Phase::Read,
                featherweight::Phase::Upload => Phase::Upload,
                featherweight::Phase::Assign => Phase::Assign,
                featherweight::Phase::Drop => Phase::Drop,
            },
        );
    }

    fn mark(&self) {
        Observed::mark(self);
    }

    fn mapped(&self, bytes: usize) {
        CountingAllocator::mapped(bytes);
    }

    fn unmapped(&self, bytes: usize) {
        CountingAllocator::unmapped(bytes);
    }

    /// It is the host's memory all the same.
    fn locked(&self, bytes: usize) {
        CountingAllocator::mapped(bytes);
        let bytes = bytes as u64;
        let now = self.locked_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.locked_peak_bytes.fetch_max(now, Ordering::Relaxed);
    }

    fn unlocked(&self, bytes: usize) {
        CountingAllocator::unmapped(bytes);
        self.locked_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

//! What the library tells of a load, to the recorder and the counting allocator.

use std::sync::{Mutex, PoisonError};

use featherweight::Observe;
use meter::{CountingAllocator, Peaks, Phase, Recorder};

/// Records a load, once it is told to.
#[derive(Default)]
pub(crate) struct Observed {
    /// One thread loads: the lock is there for the type alone.
    recorder: Mutex<Option<Recorder>>,
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
}

//! What a manifest tunes: sizes and counts that a technique works with.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// What techniques work with. Each heeds those that it declares ([`crate::Experiment::TUNED_BY`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// What may be on its way to a discrete device at once.
    pub staging_bytes: u64,
    /// Threads that read, or touch pages.
    pub threads: usize,
    /// Reads in flight.
    pub queue_depth: usize,
    /// Layers on the device at once, where they are streamed.
    pub resident_layers: usize,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunable {
    /// [`Tuning::staging_bytes`].
    Staging,
    /// [`Tuning::threads`].
    Threads,
    /// [`Tuning::queue_depth`].
    QueueDepth,
    /// [`Tuning::resident_layers`].
    ResidentLayers,
}

impl Default for Tuning {
    /// 16 MiB of staging, a thread for each of up to eight CPUs, eight reads in flight, two layers.
    fn default() -> Tuning {
        Tuning {
            staging_bytes: 16 << 20,
            threads: std::thread::available_parallelism()
                .map_or(1, NonZeroUsize::get)
                .min(8),
            queue_depth: 8,
            resident_layers: 2,
        }
    }
}

impl Tuning {
    /// Those that an experiment heeds, for records: `staging=16777216 threads=2`; `None` where it heeds none.
    pub fn describe(&self, heeded: &[Tunable]) -> Option<String> {
        let words = heeded.iter().map(|tunable| match tunable {
            Tunable::Staging => format!("staging_bytes={}", self.staging_bytes),
            Tunable::Threads => format!("threads={}", self.threads),
            Tunable::QueueDepth => format!("queue_depth={}", self.queue_depth),
            Tunable::ResidentLayers => format!("resident_layers={}", self.resident_layers),
        });
        let words: Vec<String> = words.collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// How many pieces the staging buffer has: one is read while the others are written.
    pub const PIECES: usize = 8;

    /// How much is read and uploaded at once: a piece of the staging buffer. A multiple of 4096, which direct I/O
    /// asks for.
    pub fn piece_bytes(&self) -> usize {
        let piece = self.staging_bytes as usize / Self::PIECES;
        (piece / 4096 * 4096).max(4096)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_what_was_heeded_and_nothing_else() {
        let tuning = Tuning {
            staging_bytes: 1 << 20,
            threads: 2,
            queue_depth: 3,
            resident_layers: 4,
        };
        assert_eq!(tuning.describe(&[]), None);
        let heeded = tuning.describe(&[Tunable::Staging, Tunable::ResidentLayers]);
        assert_eq!(
            heeded.as_deref(),
            Some("staging_bytes=1048576 resident_layers=4")
        );
    }

    #[test]
    fn pieces_are_whole_pages_and_eight_of_them_are_the_staging() {
        let pieces = |staging_bytes| {
            Tuning {
                staging_bytes,
                ..Tuning::default()
            }
            .piece_bytes()
        };
        assert_eq!(pieces(16 << 20), 2 << 20);
        assert_eq!(pieces(1), 4096);
        assert_eq!(pieces(80_000), 8192);
    }
}

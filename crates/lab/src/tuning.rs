//! What a manifest tunes: sizes and counts that a technique works with.

use std::fmt;
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

/// What of a [`Tuning`] an experiment heeds; `None` is what it does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuned {
    /// [`Tuning::staging_bytes`].
    pub staging_bytes: Option<u64>,
    /// [`Tuning::threads`].
    pub threads: Option<u64>,
    /// [`Tuning::queue_depth`].
    pub queue_depth: Option<u64>,
    /// [`Tuning::resident_layers`].
    pub resident_layers: Option<u64>,
}

impl fmt::Display for Tuned {
    /// `staging_bytes=16777216 threads=2`; nothing where it heeds nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            ("staging_bytes", self.staging_bytes),
            ("threads", self.threads),
            ("queue_depth", self.queue_depth),
            ("resident_layers", self.resident_layers),
        ];
        let heeded = all
            .iter()
            .filter_map(|(name, value)| Some((name, (*value)?)));
        for (place, (name, value)) in heeded.enumerate() {
            write!(f, "{}{name}={value}", if place > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

impl Tuning {
    /// What an experiment heeds of it.
    pub fn of(&self, heeded: &[Tunable]) -> Tuned {
        let value = |tunable, value: u64| heeded.contains(&tunable).then_some(value);
        Tuned {
            staging_bytes: value(Tunable::Staging, self.staging_bytes),
            threads: value(Tunable::Threads, self.threads as u64),
            queue_depth: value(Tunable::QueueDepth, self.queue_depth as u64),
            resident_layers: value(Tunable::ResidentLayers, self.resident_layers as u64),
        }
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
        assert_eq!(tuning.of(&[]), Tuned::default());
        let heeded = tuning.of(&[Tunable::Staging, Tunable::ResidentLayers]);
        assert_eq!(
            heeded.to_string(),
            "staging_bytes=1048576 resident_layers=4"
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

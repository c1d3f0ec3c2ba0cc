//! Whether what disturbed a run from outside can have moved its numbers.

use std::fmt;

use crate::Measures;
use crate::columns::{Cell, read_word};

/// From this share of a load's time on, a disturbance spoils what was timed.
pub const SPOILING_SHARE: f64 = 0.05;

/// What a page fault that reads from a disk costs where the kernel does not tell: about what a solid-state disk takes for a page.
const FAULT_SECONDS: f64 = 1e-4;

/// One kind of disturbance that spoilt a run. The names are codes: they stand in records, and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Spoiling {
    /// It waited for a disk although its file was in the page cache.
    Disk,
    /// The hypervisor took the CPUs.
    Stolen,
    /// The kernel throttled the CPUs.
    Throttled,
    /// Some of it lay in swap.
    Swap,
    /// Another process used the GPU.
    SharedDevice,
    /// The sources differed from the commit.
    Dirty,
}

/// What a disturbance can move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Seconds.
    Time,
    /// Bytes, and what is computed from the weights.
    Memory,
}

impl Spoiling {
    /// Every kind.
    pub const ALL: [Spoiling; 6] = [
        Spoiling::Disk,
        Spoiling::Stolen,
        Spoiling::Throttled,
        Spoiling::Swap,
        Spoiling::SharedDevice,
        Spoiling::Dirty,
    ];

    /// Whether it can have moved such a number: waiting makes a load slower, and its peaks no larger.
    pub fn moves(self, quantity: Quantity) -> bool {
        match self {
            Spoiling::Disk | Spoiling::Stolen | Spoiling::Throttled => quantity == Quantity::Time,
            Spoiling::Swap | Spoiling::SharedDevice | Spoiling::Dirty => true,
        }
    }

    /// In words, behind "spoilt by".
    pub const fn describe(self) -> &'static str {
        match self {
            Spoiling::Disk => "waiting for the disk although the cache was warm",
            Spoiling::Stolen => "the hypervisor, which took the CPUs",
            Spoiling::Throttled => "throttled CPUs",
            Spoiling::Swap => "swapping",
            Spoiling::SharedDevice => "another process on the GPU",
            Spoiling::Dirty => "sources that differ from the commit",
        }
    }

    /// What spoilt a run, by what was measured of it. A disturbance counts from [`SPOILING_SHARE`] of the load's time on. From a
    /// cold cache, and under a cap, a run is meant to wait for the disk: `waits_for_disk`.
    pub fn of(measures: &Measures, waits_for_disk: bool) -> Vec<Spoiling> {
        let counts = |cost_seconds: Option<f64>| {
            let share = cost_seconds
                .zip(measures.load_seconds)
                .map(|(cost, load)| cost >= SPOILING_SHARE * load && cost > 0.0);
            share.unwrap_or(false)
        };
        let faults = measures.major_faults.filter(|&faults| faults > 0);
        let by_faults = faults.map(|faults| faults as f64 * FAULT_SECONDS);
        let disk = measures.disk_wait_seconds.or(by_faults);
        let is_there = |count: Option<u64>| count.is_some_and(|count| count > 0);
        let found = [
            (Spoiling::Disk, !waits_for_disk && counts(disk)),
            (Spoiling::Stolen, counts(measures.stolen_seconds)),
            (Spoiling::Throttled, counts(measures.throttled_seconds)),
            (Spoiling::Swap, is_there(measures.swap_peak_bytes)),
            (
                Spoiling::SharedDevice,
                is_there(measures.other_device_processes),
            ),
        ];
        let found = found.into_iter().filter(|(_, is_so)| *is_so);
        found.map(|(spoiling, _)| spoiling).collect()
    }
}

impl fmt::Display for Spoiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Spoiling::Disk => "disk",
            Spoiling::Stolen => "stolen",
            Spoiling::Throttled => "throttled",
            Spoiling::Swap => "swap",
            Spoiling::SharedDevice => "shared-device",
            Spoiling::Dirty => "dirty",
        })
    }
}

/// Codes behind one another, with spaces between.
impl Cell for Vec<Spoiling> {
    fn write(&self) -> String {
        let codes: Vec<String> = self.iter().map(Spoiling::to_string).collect();
        codes.join(" ")
    }

    fn read(text: &str) -> Result<Self, String> {
        let codes = text.split_whitespace();
        codes.map(|code| read_word(&Spoiling::ALL, code)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_of(seconds: f64) -> Measures {
        Measures {
            load_seconds: Some(seconds),
            ..Measures::default()
        }
    }

    #[test]
    fn a_disturbance_spoils_a_run_by_what_it_can_have_cost_and_not_by_being_there() {
        let faults = |faults, wait, load| Measures {
            major_faults: Some(faults),
            disk_wait_seconds: wait,
            ..load_of(load)
        };
        let spoilt = |measures: Measures| Spoiling::of(&measures, false);
        assert_eq!(spoilt(faults(1, Some(0.0002), 0.3)), []);
        assert_eq!(spoilt(faults(1, Some(0.02), 0.3)), [Spoiling::Disk]);
        // Where the kernel does not tell how long they took.
        assert_eq!(spoilt(faults(1, None, 0.3)), []);
        assert_eq!(spoilt(faults(400, None, 0.3)), [Spoiling::Disk]);
        let stolen = |seconds| Measures {
            stolen_seconds: Some(seconds),
            ..load_of(1.0)
        };
        assert_eq!(spoilt(stolen(0.04)), []);
        assert_eq!(spoilt(stolen(0.06)), [Spoiling::Stolen]);
    }

    #[test]
    fn a_run_that_is_meant_to_wait_for_the_disk_is_not_spoilt_by_it() {
        let cold = Measures {
            disk_wait_seconds: Some(0.9),
            major_faults: Some(1000),
            ..load_of(1.0)
        };
        assert_eq!(Spoiling::of(&cold, true), []);
        assert_eq!(Spoiling::of(&cold, false), [Spoiling::Disk]);
    }

    #[test]
    fn waiting_moves_times_and_no_peaks_and_swap_moves_both() {
        assert!(Spoiling::Disk.moves(Quantity::Time) && !Spoiling::Disk.moves(Quantity::Memory));
        assert!(Spoiling::Swap.moves(Quantity::Time) && Spoiling::Swap.moves(Quantity::Memory));
    }

    #[test]
    fn codes_survive_being_written_and_read() {
        let all = Spoiling::ALL.to_vec();
        assert_eq!(Vec::<Spoiling>::read(&all.write()), Ok(all));
        assert_eq!(Vec::<Spoiling>::read(""), Ok(Vec::new()));
        assert!(Vec::<Spoiling>::read("rust").unwrap_err().contains("disk"));
    }
}

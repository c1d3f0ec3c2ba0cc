//! Peaks as charts show them: what was measured, by which instrument, and what was promised of it.

use plotters::style::RGBColor;

use super::style;
use crate::summary::{Line, Spread};

/// A kind of memory, as one instrument sees it.
#[derive(Clone, Copy)]
pub struct Instrument {
    pub colour: RGBColor,
    pub label: &'static str,
    pub peak: fn(&Line) -> Option<Spread>,
    pub promised: fn(&Line) -> Option<u64>,
    /// Whether it is left out of a line where it is next to nothing or was not measured.
    pub is_extra: bool,
}

pub const DEVICE: Instrument = Instrument {
    colour: style::DEVICE,
    label: "device memory in use",
    peak: |line| line.bytes(|measures| measures.device_in_use_peak_bytes),
    promised: |line| line.contract(|measures| measures.device_contract_bytes),
    is_extra: false,
};

const HEAP: Instrument = Instrument {
    colour: style::HOST,
    label: "host heap",
    peak: |line| line.bytes(|measures| measures.host_heap_peak_bytes),
    promised: |line| line.contract(|measures| measures.host_contract_bytes),
    is_extra: false,
};

/// Contracts are about the heap.
const RESIDENT: Instrument = Instrument {
    colour: style::HOST,
    label: "host resident peak, by the kernel",
    peak: |line| line.bytes(|measures| measures.host_rss_peak_bytes),
    promised: |_| None,
    is_extra: false,
};

pub const FILE_PAGES: Instrument = Instrument {
    colour: style::FILE,
    label: "host file pages (reclaimable)",
    peak: |line| line.bytes(|measures| measures.host_file_peak_bytes),
    promised: |_| None,
    is_extra: true,
};

/// What the host's peaks of these lines are compared by: the heap where all have one, the resident peak where only that was
/// measured of all, as of commands in other languages.
pub fn of_host(lines: &[&Line]) -> Instrument {
    let measures_all =
        |instrument: &Instrument| lines.iter().all(|line| (instrument.peak)(line).is_some());
    match !measures_all(&HEAP) && measures_all(&RESIDENT) {
        true => RESIDENT,
        false => HEAP,
    }
}

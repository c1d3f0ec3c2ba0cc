//! `harness run --dry-run`: what would be run, and what it would take.

use comfy_table::CellAlignment;

use super::list;
use crate::estimate::rough_seconds;
use crate::manifest::{HostCaps, Manifest};
use crate::plan::Planned;
use crate::supply::Supply;
use crate::{machine, units};

/// Prints the plan with predicted peaks, disk and time.
pub fn print(runs: &[Planned], supply: &Supply<'_>, manifest: &Manifest) {
    let available = machine::available_memory_bytes();
    let mut table = list::table(&[
        "run",
        "predicted host heap",
        "predicted device",
        "will be run",
    ]);
    let mut seconds = 0.0;
    for run in runs {
        let contract = run.contract();
        let on_device = contract.and_then(|contract| contract.device_bytes);
        let device = on_device.map_or("–".to_owned(), units::bytes);
        // A cap ends the run before it takes more.
        let cap = run.host_cap_bytes().unwrap_or(u64::MAX);
        let obstacle = run.obstacle(available);
        if obstacle.is_none() {
            seconds += rough_seconds(run);
        }
        let will = obstacle.map_or("yes".to_owned(), |reason| format!("no: {reason}"));
        table.add_row([
            run.label(),
            contract.map_or("–".to_owned(), |contract| {
                units::bytes(contract.host_heap_bytes.min(cap))
            }),
            device,
            will,
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let disk = supply.missing_bytes(runs);
    println!("{table}");
    println!("runs:   {}", runs.len());
    println!("disk:   {} of checkpoints to prepare", units::bytes(disk));
    println!("time:   very roughly {} min", (seconds / 60.0).ceil());
    println!("limit:  {} s for a run", manifest.limits.timeout_seconds);
    if manifest.host_caps == HostCaps::Smallest {
        println!(
            "each is followed by runs under host caps, about eight, until the smallest is found"
        );
    }
}

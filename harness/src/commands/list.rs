//! `harness list`: what can be run here.

use comfy_table::{Table, presets};
use gpt2::Size;
use lab::{DeviceReport, Reads};

use crate::{registry, units};

pub fn list() {
    let mut experiments = table(&["experiment", "what it does", "reads"]);
    for experiment in registry::all() {
        let reads = match experiment.reads {
            Reads::StateDict => "safetensors or pth".to_owned(),
            Reads::Only(format) => format.to_string(),
            Reads::Nothing => "nothing".to_owned(),
        };
        experiments.add_row([experiment.name, experiment.summary, &reads]);
    }
    println!("{experiments}\n");

    let mut sizes = table(&[
        "size",
        "embedding",
        "layers",
        "heads",
        "parameters",
        "in f32",
    ]);
    for size in Size::NAMED {
        let config = size.config();
        sizes.add_row([
            size.to_string(),
            config.embedding.to_string(),
            config.layers.to_string(),
            config.heads.to_string(),
            config.parameters().to_string(),
            units::bytes(4 * config.parameters()),
        ]);
    }
    println!("{sizes}\nor free-form: v257-c64-e48-l2-h4\n");
    println!("{}", devices(&lab::find_devices()));
}

/// The devices, usable or not.
pub fn devices(found: &[DeviceReport]) -> Table {
    let mut devices = table(&["device", "usable", ""]);
    for device in found {
        let (usable, what) = match &device.state {
            Ok(what) => ("yes", what),
            Err(reason) => ("no", reason),
        };
        devices.add_row([&device.spec.to_string(), usable, what]);
    }
    devices
}

/// A table in the house's style.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

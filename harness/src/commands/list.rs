//! `harness list`: what can be run here.

use comfy_table::{Table, presets};
use gpt2::Size;
use lab::{DeviceReport, Reads, Registered};
use serde_json::{Value, json};

use crate::cli::FormatArgs;
use crate::house::{self, Known};
use crate::{registry, units};

pub fn list(args: &FormatArgs) -> anyhow::Result<()> {
    let devices = lab::find_devices();
    let manifests = house::known();
    match args.json {
        true => println!("{:#}", as_json(&manifests, &devices)),
        false => print(&manifests, &devices),
    }
    Ok(())
}

fn print(manifests: &[Known], found: &[DeviceReport]) {
    let mut experiments = table(&["experiment", "what it does", "reads"]);
    for experiment in registry::all() {
        experiments.add_row([experiment.name, experiment.summary, &reads(experiment)]);
    }
    println!("{experiments}\n");

    let mut runnable = table(&["manifest", "what it is for"]);
    for manifest in manifests {
        runnable.add_row([&manifest.name, &manifest.about]);
    }
    println!("{runnable}\n");

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
    println!("{}", devices(found));
}

fn as_json(manifests: &[Known], found: &[DeviceReport]) -> Value {
    let experiments = registry::all().map(|experiment| {
        json!({
            "name": experiment.name,
            "summary": experiment.summary,
            "reads": reads(experiment),
            "crate": experiment.experiment,
        })
    });
    let manifests = manifests.iter().map(|manifest| {
        json!({
            "name": manifest.name,
            "about": manifest.about,
        })
    });
    let sizes = Size::NAMED.iter().map(|size| {
        let config = size.config();
        json!({
            "name": size.to_string(),
            "vocabulary": config.vocabulary,
            "context": config.context,
            "embedding": config.embedding,
            "layers": config.layers,
            "heads": config.heads,
            "parameters": config.parameters(),
            "f32_bytes": 4 * config.parameters(),
        })
    });
    json!({
        "experiments": experiments.collect::<Vec<_>>(),
        "manifests": manifests.collect::<Vec<_>>(),
        "sizes": sizes.collect::<Vec<_>>(),
        "devices": devices_as_json(found),
    })
}

/// What an experiment reads, in words.
fn reads(experiment: &Registered) -> String {
    match experiment.reads {
        Reads::StateDict => "safetensors or pth".to_owned(),
        Reads::Only(format) => format.to_string(),
        Reads::Nothing => "nothing".to_owned(),
    }
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

/// The same, for a program.
pub fn devices_as_json(found: &[DeviceReport]) -> Vec<Value> {
    let devices = found.iter().map(|device| {
        json!({
            "name": device.spec.to_string(),
            "usable": device.state.is_ok(),
            "description": device.state.as_ref().ok(),
            "reason": device.state.as_ref().err(),
            "memory_model": device.spec.backend.memory_model().name(),
            "is_software": device.is_software,
            "free_bytes": device.free_bytes,
        })
    });
    devices.collect()
}

/// A table in the house's style.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

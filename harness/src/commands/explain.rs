//! `harness explain`: what was alive at the peak of a recorded run, in words.

use std::path::{Path, PathBuf};

use anyhow::bail;
use lab::{Measures, Unit};
use meter::Sample;
use serde_json::{Value, json};

use crate::cli::ExplainArgs;
use crate::driver::device_name;
use crate::exit::Ended;
use crate::manifest::{Manifest, experiment_names, unknown_experiment};
use crate::record::{self, Record};
use crate::results::{MANIFEST, read_runs, read_timeline};
use crate::{house, recorded, registry, units};

pub fn explain(args: &ExplainArgs) -> anyhow::Result<()> {
    let folders = match &args.results {
        Some(folder) => vec![folder.clone()],
        None => recorded::folders(),
    };
    let described = describe(&args.experiment, &folders)?;
    let (folder, run) = choose(args, &folders)?;
    let timeline = read_timeline(&folder, &run.run_id)?;
    let explanation = Explanation { run, timeline };
    let records = folder.join("runs.csv");
    if args.format.json {
        let object = json!({
            "experiment": described.name,
            "summary": described.summary,
            "recorded_in": records,
            "run": record::as_json(&explanation.run),
            "peaks": explanation.peaks_as_json()?,
        });
        println!("{object:#}");
        return Ok(());
    }
    println!("{}: {}\n", described.name, described.summary);
    print!("{}", explanation.text());
    println!("\nrecorded in {}", records.display());
    Ok(())
}

/// What was run: one of ours, or a command that a manifest names.
struct Described {
    name: String,
    summary: String,
}

/// Looks for the name among the experiments, and among the commands in the manifests that were kept with the results.
fn describe(name: &str, folders: &[PathBuf]) -> anyhow::Result<Described> {
    if let Some(experiment) = registry::find(name) {
        return Ok(Described {
            name: experiment.name.to_owned(),
            summary: experiment.summary.to_owned(),
        });
    }
    let mut names: Vec<String> = experiment_names().map(str::to_owned).collect();
    // A manifest of an earlier version may not be understood any more; its runs are none of a command then.
    let kept = folders.iter().filter_map(|folder| kept_manifest(folder));
    for external in kept.flat_map(|manifest| manifest.externals) {
        if external.name == name {
            return Ok(Described {
                name: external.name.clone(),
                summary: external.summary.clone(),
            });
        }
        if !names.contains(&external.name) {
            names.push(external.name.clone());
        }
    }
    let names = names.iter().map(String::as_str);
    Err(Ended::Usage(unknown_experiment(name, names)).into())
}

fn kept_manifest(folder: &Path) -> Option<Manifest> {
    Manifest::load(&folder.join(MANIFEST)).ok()
}

/// The run that was asked for: of those that fit the one of the largest model, on memory of its own if there
/// is one, with the median load time.
fn choose(args: &ExplainArgs, folders: &[PathBuf]) -> anyhow::Result<(PathBuf, Record)> {
    let fits = |record: &Record| match &args.run {
        Some(id) => record.run_id == *id,
        None => {
            let size = args.size.map(|size| size.to_string());
            let device = args.device.map(|device| device.to_string());
            record.host_cap_bytes.is_none()
                && size.is_none_or(|size| record.model == size)
                && device.is_none_or(|device| record.device == device)
        }
    };
    for folder in folders {
        let mut runs = read_runs(folder)?;
        runs.retain(|record| {
            record.experiment == registry::current_name(&args.experiment)
                && record.is_measured()
                && fits(record)
        });
        let rank = |record: &Record| (record.memory_model == "discrete", record.model_bytes);
        let Some(best) = runs.iter().map(rank).max() else {
            continue;
        };
        runs.retain(|record| rank(record) == best);
        let seconds = |record: &Record| record.measures.load_seconds.unwrap_or(f64::INFINITY);
        runs.sort_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        let median = runs.swap_remove((runs.len() - 1) / 2);
        return Ok((folder.clone(), median));
    }
    let places: Vec<_> = folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    let name = &args.experiment;
    let manifest = house::known().into_iter().find(|known| {
        let manifest = house::load(Path::new(&known.name));
        manifest.is_ok_and(|manifest| manifest.names().contains(&&**name))
    });
    let how = manifest.map_or(String::new(), |known| {
        format!(": make one with `harness run {} --only {name}`", known.name)
    });
    bail!(
        "no such run of {name} ended ok in {}{how}",
        match places.is_empty() {
            true => "runs or results".to_owned(),
            false => places.join(", "),
        }
    )
}

/// What is told of apart, or is nothing that was held.
const SAID_ABOVE: [&str; 8] = [
    "host_heap_peak_bytes",
    "host_contract_bytes",
    "device_in_use_peak_bytes",
    "device_contract_bytes",
    "device_reserved_peak_bytes",
    "device_reserved_contract_bytes",
    "host_rss_baseline_bytes",
    "swap_peak_bytes",
];

/// A run, and what it held over time.
struct Explanation {
    run: Record,
    timeline: Vec<Sample>,
}

impl Explanation {
    fn text(&self) -> String {
        let run = &self.run;
        let model = run.model_bytes;
        let mut lines = vec![format!(
            "run {}: {} ({} of model, {}) on {}, {} cache, loaded in {}",
            run.run_id,
            run.model,
            units::bytes(model),
            run.dtype,
            device_name(&run.device, run.driver.as_deref()),
            run.cache,
            run.measures
                .load_seconds
                .map_or("an unknown time".to_owned(), units::seconds)
        )];
        for peak in self.peaks() {
            lines.extend(peak.text(run.model_bytes));
        }
        lines.push(String::new());
        lines.push("over the whole load:".to_owned());
        for column in Measures::COLUMNS {
            let is_shown = column.unit == Unit::Bytes && !SAID_ABOVE.contains(&column.name);
            if let Some(bytes) = (column.number)(&run.measures).filter(|_| is_shown) {
                let bytes = of_model(bytes as u64, model);
                let meaning = column.meaning.trim_end_matches('.');
                lines.push(format!("  {bytes:<22} {meaning}: {}", column.how));
            }
        }
        if !run.spoilt_by.is_empty() {
            let by: Vec<&str> = run.spoilt_by.iter().map(|by| by.describe()).collect();
            lines.push(format!("\nthe run is spoilt by {}", by.join(" and ")));
        }
        lines.join("\n") + "\n"
    }

    /// The peaks that a contract promises, as far as they were measured.
    fn peaks(&self) -> Vec<Peak<'_>> {
        let run = &self.run.measures;
        let host = run.host_heap_peak_bytes.zip(run.host_contract_bytes);
        let device = run.device_in_use_peak_bytes.zip(run.device_contract_bytes);
        let host = host.map(|(bytes, contract_bytes)| Peak {
            what: "host heap",
            how: "exact",
            bytes,
            contract_bytes: Some(contract_bytes),
            phase: run.host_peak_phase.as_deref(),
            seen: self.seen(|sample| sample.host_heap_bytes),
        });
        let device = device.map(|(bytes, contract_bytes)| Peak {
            what: "device in use",
            how: "read after every upload",
            bytes,
            contract_bytes: Some(contract_bytes),
            phase: run.device_peak_phase.as_deref(),
            seen: self.seen(|sample| sample.device_in_use_bytes),
        });
        let pools = run.device_reserved_peak_bytes;
        let pools = pools.map(|bytes| Peak {
            what: "device, held by the allocator's pools",
            how: "read after every upload",
            bytes,
            contract_bytes: run.device_reserved_contract_bytes,
            phase: None,
            seen: self.seen(|sample| sample.device_reserved_bytes),
        });
        host.into_iter().chain(device).chain(pools).collect()
    }

    /// When the sampler saw the most of something: at most 4 ms from the peak itself.
    fn seen(&self, measure: fn(&Sample) -> Option<u64>) -> Option<Seen<'_>> {
        let measured = |sample: &Sample| measure(sample).unwrap_or(0);
        let sample = self.timeline.iter().max_by_key(|sample| measured(sample))?;
        Some(Seen {
            sample,
            bytes: measured(sample),
        })
    }

    fn peaks_as_json(&self) -> anyhow::Result<Vec<Value>> {
        let peaks = self.peaks();
        let peaks = peaks.iter().map(|peak| {
            let sample = peak.seen.as_ref().map(|seen| seen.sample);
            Ok(json!({
                "memory": peak.what,
                "measured": peak.how,
                "peak_bytes": peak.bytes,
                "of_model": peak.bytes as f64 / self.run.model_bytes as f64,
                "phase": peak.phase,
                "contract_bytes": peak.contract_bytes,
                "contract_held": peak.contract_bytes.map(|contract| peak.bytes <= contract),
                "alive": serde_json::to_value(sample)?,
            }))
        });
        peaks.collect()
    }
}

/// One kind of memory: its peak with the contract, the phase that set it, and what was alive then.
struct Peak<'a> {
    what: &'static str,
    how: &'static str,
    bytes: u64,
    /// `None` where nothing is promised.
    contract_bytes: Option<u64>,
    /// `None` where it is not known which phase set it.
    phase: Option<&'a str>,
    /// `None` where no timeline was recorded.
    seen: Option<Seen<'a>>,
}

/// A sample, and what it saw of the peak's memory.
struct Seen<'a> {
    sample: &'a Sample,
    bytes: u64,
}

impl Peak<'_> {
    fn text(&self, model_bytes: u64) -> [String; 4] {
        let Peak { what, how, .. } = self;
        let of_model = of_model(self.bytes, model_bytes);
        let phase = self.phase;
        let phase = phase.map_or(String::new(), |phase| format!(", set in phase {phase}"));
        let promised = self.contract_bytes.map_or(
            format!("  the contract promises nothing of {what}"),
            |contract| excess(what, self.bytes, contract),
        );
        [
            String::new(),
            format!("{what}: {of_model} at the peak, {how}{phase}"),
            self.alive(),
            promised,
        ]
    }

    fn alive(&self) -> String {
        let Some(Seen {
            sample,
            bytes: seen,
        }) = &self.seen
        else {
            return "  no timeline was recorded".to_owned();
        };
        let held = [
            ("heap", sample.host_heap_bytes),
            ("anonymous pages", Some(sample.host_anon_bytes)),
            ("file pages", Some(sample.host_file_bytes)),
            ("device in use", sample.device_in_use_bytes),
            ("device reserved", sample.device_reserved_bytes),
        ];
        let held = held
            .iter()
            .filter_map(|(what, bytes)| Some(format!("{what} {}", units::bytes((*bytes)?))));
        let missed = match *seen < self.bytes - self.bytes / 100 {
            true => format!(" (the sampler saw {} of it)", units::bytes(*seen)),
            false => String::new(),
        };
        format!(
            "  alive {} into the load, in phase {}: {}{missed}",
            units::seconds(sample.time_seconds),
            sample.phase,
            held.collect::<Vec<_>>().join(", ")
        )
    }
}

fn of_model(bytes: u64, model_bytes: u64) -> String {
    let times = bytes as f64 / model_bytes as f64;
    format!("{} ({times:.2}×)", units::bytes(bytes))
}

fn excess(what: &str, peak: u64, contract: u64) -> String {
    let apart = units::bytes(peak.abs_diff(contract));
    let promised = units::bytes(contract);
    match peak > contract {
        true => format!("  the contract promised {promised} of {what}: broken, by {apart}"),
        false => {
            format!("  the contract promises {promised} of {what}: kept, with {apart} to spare")
        }
    }
}

#[cfg(test)]
mod tests {
    use meter::Phase;

    use super::*;

    #[test]
    fn an_explanation_names_the_phase_what_was_alive_and_the_excess_over_the_contract() {
        const MIB: u64 = 1 << 20;
        let run = Record {
            run_id: "naive_small_vulkan".to_owned(),
            model_bytes: 100 * MIB,
            measures: Measures {
                host_heap_peak_bytes: Some(30 * MIB),
                host_peak_phase: Some("upload".to_owned()),
                host_contract_bytes: Some(20 * MIB),
                device_in_use_peak_bytes: Some(200 * MIB),
                device_peak_phase: Some("assign".to_owned()),
                device_contract_bytes: Some(208 * MIB),
                device_reserved_peak_bytes: Some(250 * MIB),
                ..Measures::default()
            }
            .into(),
            ..Record::unmeasured()
        };
        let sample = |heap, device| Sample {
            time_seconds: 0.5,
            phase: Phase::Upload,
            host_heap_bytes: Some(heap * MIB),
            host_anon_bytes: 40 * MIB,
            host_file_bytes: 3 * MIB,
            device_in_use_bytes: Some(device * MIB),
            device_reserved_bytes: Some(250 * MIB),
        };
        let timeline = vec![sample(30, 100), sample(1, 150)];
        let text = Explanation { run, timeline }.text();
        for expected in [
            "30.0 MiB (0.30×) at the peak, exact, set in phase upload",
            "heap 30.0 MiB, anonymous pages 40.0 MiB, file pages 3.00 MiB, device in use 100 MiB, device reserved 250 MiB",
            "promised 20.0 MiB of host heap: broken, by 10.0 MiB",
            "set in phase assign",
            "(the sampler saw 150 MiB of it)",
            "kept, with 8.00 MiB to spare",
            "device, held by the allocator's pools: 250 MiB (2.50×) at the peak, read after every upload\n",
            "the contract promises nothing of device, held by the allocator's pools",
        ] {
            assert!(text.contains(expected), "{text}\nshould contain {expected}");
        }
    }
}

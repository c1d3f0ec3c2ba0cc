//! `harness explain`: what was alive at the peak of a recorded run, in words.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use lab::Sample;

use crate::cli::ExplainArgs;
use crate::exit::Ended;
use crate::manifest::{experiment_names, unknown_experiment};
use crate::record::Record;
use crate::registry;
use crate::results::{read_runs, read_timeline};
use crate::units;

pub fn explain(args: &ExplainArgs) -> anyhow::Result<()> {
    let name = &args.experiment;
    let Some(experiment) = registry::find(name) else {
        return Err(Ended::Usage(unknown_experiment(name, experiment_names())).into());
    };
    let (folder, run) = choose(args)?;
    let timeline = read_timeline(&folder, &run.run_id)?;
    println!("{}: {}", experiment.name, experiment.summary);
    println!();
    print!("{}", Explanation { run, timeline }.text());
    println!("\nrecorded in {}", folder.join("runs.csv").display());
    Ok(())
}

/// The run that was asked for: of those that fit the one of the largest model, on memory of its own if there
/// is one, with the median load time.
fn choose(args: &ExplainArgs) -> anyhow::Result<(PathBuf, Record)> {
    let folders = match &args.results {
        Some(folder) => vec![folder.clone()],
        None => newest_first(Path::new("results"))?,
    };
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
    for folder in &folders {
        let mut runs = read_runs(folder)?;
        runs.retain(|record| {
            record.experiment == args.experiment && record.is_measured() && fits(record)
        });
        let rank = |record: &Record| (record.memory_model == "discrete", record.model_bytes);
        let Some(best) = runs.iter().map(rank).max() else {
            continue;
        };
        runs.retain(|record| rank(record) == best);
        let seconds = |record: &Record| record.load_seconds.unwrap_or(f64::INFINITY);
        runs.sort_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        let median = runs.swap_remove((runs.len() - 1) / 2);
        return Ok((folder.clone(), median));
    }
    let places: Vec<_> = folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    bail!(
        "no such run of {} ended ok in {}: make one with `harness run reproduce --only {}`",
        args.experiment,
        match places.is_empty() {
            true => "results".to_owned(),
            false => places.join(", "),
        },
        args.experiment
    )
}

/// `results/<machine>/<manifest>`, what was recorded last first.
fn newest_first(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = |folder: &Path| -> anyhow::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder)
            .with_context(|| format!("{}: no results can be read there", folder.display()))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    };
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for machine in list(root)?.into_iter().filter(|path| path.is_dir()) {
        for folder in list(&machine)? {
            let modified = std::fs::metadata(folder.join("runs.csv")).and_then(|m| m.modified());
            if let Ok(modified) = modified {
                found.push((modified, folder));
            }
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found.into_iter().map(|(_, folder)| folder).collect())
}

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
            run.device,
            run.cache,
            run.load_seconds
                .map_or("an unknown time".to_owned(), units::seconds)
        )];
        lines.extend(self.peak(
            ("host heap", "exact"),
            run.host_heap_peak_bytes.zip(run.host_contract_bytes),
            run.host_peak_phase.as_deref(),
            |sample| sample.host_heap_bytes.unwrap_or(0),
        ));
        lines.extend(self.peak(
            ("device in use", "read after every upload"),
            run.device_in_use_peak_bytes.zip(run.device_contract_bytes),
            run.device_peak_phase.as_deref(),
            |sample| sample.device_in_use_bytes.unwrap_or(0),
        ));
        lines.push(String::new());
        lines.push("over the whole load:".to_owned());
        let peaks = [
            ("resident, by the kernel", run.host_rss_peak_bytes),
            ("anonymous pages, sampled", run.host_anon_peak_bytes),
            (
                "file pages, sampled; the kernel takes them back when memory is short",
                run.host_file_peak_bytes,
            ),
            (
                "the run's cgroup, by the kernel, file pages that it read first included",
                run.host_cgroup_peak_bytes,
            ),
            (
                "device reserved, read at every mark",
                run.device_reserved_peak_bytes,
            ),
            (
                "CUDA's pool, handed out, by the driver",
                run.device_pool_used_peak_bytes,
            ),
            (
                "CUDA's pool, held, by the driver",
                run.device_pool_reserved_peak_bytes,
            ),
            (
                "the driver's own view of the process, sampled",
                run.device_driver_peak_bytes,
            ),
            ("read from files by read calls", run.bytes_read),
        ];
        for (what, bytes) in peaks {
            if let Some(bytes) = bytes {
                lines.push(format!("  {:<22} {what}", of_model(bytes, model)));
            }
        }
        if let Some(why) = &run.spoilt_by {
            lines.push(format!("\nthe run may be spoilt: {why}"));
        }
        lines.join("\n") + "\n"
    }

    /// One kind of memory: its peak with the contract, the phase that set it, and what was alive then.
    fn peak(
        &self,
        (what, how): (&str, &str),
        peak_and_contract_bytes: Option<(u64, u64)>,
        phase: Option<&str>,
        measure: fn(&Sample) -> u64,
    ) -> Vec<String> {
        let Some((peak, contract)) = peak_and_contract_bytes else {
            return Vec::new();
        };
        let of_model = of_model(peak, self.run.model_bytes);
        let phase = phase.unwrap_or("unknown");
        let mut lines = vec![
            String::new(),
            format!("{what}: {of_model} at the peak, {how}, set in phase {phase}"),
        ];
        lines.extend(self.alive(measure, peak));
        lines.push(excess(what, peak, contract));
        lines
    }

    /// What else was held when the sampler saw the most: at most 4 ms from the peak itself.
    fn alive(&self, measure: impl Fn(&Sample) -> u64, peak: u64) -> Vec<String> {
        let Some(sample) = self.timeline.iter().max_by_key(|sample| measure(sample)) else {
            return vec!["  no timeline was recorded".to_owned()];
        };
        let mut held = Vec::new();
        let mut hold = |what: &str, bytes: Option<u64>| {
            if let Some(bytes) = bytes {
                held.push(format!("{what} {}", units::bytes(bytes)));
            }
        };
        hold("heap", sample.host_heap_bytes);
        hold("anonymous pages", Some(sample.host_anon_bytes));
        hold("file pages", Some(sample.host_file_bytes));
        hold("device in use", sample.device_in_use_bytes);
        hold("device reserved", sample.device_reserved_bytes);
        let seen = measure(sample);
        let missed = match seen < peak - peak / 100 {
            true => format!(" (the sampler saw {} of it)", units::bytes(seen)),
            false => String::new(),
        };
        vec![format!(
            "  alive {} into the load, in phase {}: {}{missed}",
            units::seconds(sample.time_seconds),
            sample.phase,
            held.join(", ")
        )]
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
    use lab::Phase;

    use super::*;

    #[test]
    fn an_explanation_names_the_phase_what_was_alive_and_the_excess_over_the_contract() {
        const MIB: u64 = 1 << 20;
        let run = Record {
            run_id: "naive_small_vulkan".to_owned(),
            model_bytes: 100 * MIB,
            host_heap_peak_bytes: Some(30 * MIB),
            host_peak_phase: Some("upload".to_owned()),
            host_contract_bytes: Some(20 * MIB),
            device_in_use_peak_bytes: Some(200 * MIB),
            device_peak_phase: Some("assign".to_owned()),
            device_contract_bytes: Some(208 * MIB),
            device_reserved_peak_bytes: Some(250 * MIB),
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
            "250 MiB (2.50×)        device reserved",
        ] {
            assert!(text.contains(expected), "{text}\nshould contain {expected}");
        }
    }
}

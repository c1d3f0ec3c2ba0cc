//! `harness run` and `harness minmem`: from the manifest to the table.

use std::collections::HashMap;

use anyhow::Context;
use lab::Status;
use meter::HostCaps;

use super::dry_run;
use crate::checkout::{self, RUNS};
use crate::checkpoints::Store;
use crate::cli::{MinmemArgs, RunArgs, RunOptions};
use crate::execution::{Execution, Prepared, Stopped};
use crate::executor::Executor;
use crate::exit::Ended;
use crate::findings::Findings;
use crate::machine::{self, Machine};
use crate::manifest::{self, Devices, Manifest};
use crate::plan;
use crate::presentation::Presentation;
use crate::record::Record;
use crate::results::{MACHINE, MANIFEST, Results};
use crate::summary::Spoilt;
use crate::supply::Supply;
use crate::{atomic, house, interrupt};

pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    carry_out(house::load(&args.manifest)?, &args.options)
}

/// As [`run`], of a manifest that searches for the smallest host caps.
pub fn minmem(args: &MinmemArgs) -> anyhow::Result<()> {
    let manifest = house::load(&args.manifest)?;
    if manifest.host_caps != manifest::HostCaps::Smallest {
        let message = format!(
            "{}: searches for nothing: write host_caps = [\"smallest\"] below [matrix], or use `harness run`",
            args.manifest.display()
        );
        return Err(Ended::Usage(message).into());
    }
    carry_out(manifest, &args.options)
}

fn carry_out(mut manifest: Manifest, options: &RunOptions) -> anyhow::Result<()> {
    override_matrix(&mut manifest, options)?;
    interrupt::watch()?;
    let store = Store::new(options.store.checkpoints.clone());
    let supply = Supply::new(&store, options, &mut manifest)?;
    let devices = lab::find_devices();
    plan::check_size(&manifest, &devices).map_err(Ended::Usage)?;
    let runs = plan::plan(&manifest, &devices);
    for run in &runs {
        lab::check_comparable(&run.size.config()).with_context(|| match supply.imported() {
            Some(path) => path.display().to_string(),
            None => run.size.to_string(),
        })?;
    }
    let disk = store.check_disk(
        supply.missing_bytes(&runs),
        manifest.limits.min_free_disk_bytes,
    );
    if options.dry_run {
        dry_run::print(&runs, &supply, &manifest);
        return disk;
    }
    disk?;

    let caps = HostCaps::detect();
    let machine = Machine::detect(options.machine.as_deref(), &devices, store.root(), &caps);
    let out = options.out.clone().unwrap_or_else(|| {
        let mut folder = manifest.name.clone();
        if let Some(file) = &options.checkpoint {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            folder = format!("{folder}-{stem}");
        }
        checkout::folder(RUNS).join(&machine.machine).join(folder)
    });
    let (results, records) = Results::open(&out, options.resume)?;
    atomic::write(&out.join(MACHINE), toml::to_string(&machine)?)?;
    atomic::write(&out.join(MANIFEST), &manifest.text)?;
    let mut execution = Execution {
        options,
        manifest: &manifest,
        machine: &machine.machine,
        code: machine::code(),
        executor: Executor::new(manifest.limits.timeout_seconds, caps)?,
        supply,
        results,
        records,
        prepared: Prepared::new(),
        set_up: HashMap::new(),
    };
    execution.set_up_externals();
    let stopped = match manifest.host_caps {
        manifest::HostCaps::These(_) => execution.run_all(&runs)?,
        manifest::HostCaps::Smallest => execution.search_all(&runs)?,
    };
    let interrupted = stopped == Stopped::Interrupted;
    if execution.records.is_empty() && interrupted {
        return Err(execution.interrupted().into());
    }
    let presentation = Presentation::of(&out, options.plots.clone(), Spoilt::LeftOut)?;
    presentation.write()?;
    println!("{}", presentation.terminal());
    println!("results:   {}", out.display());
    let report = match presentation.is_simulated() {
        // Of a simulated device, nothing is shown.
        true => None,
        false => {
            println!("charts:    {}", presentation.plots.display());
            Some(out.join("report.md"))
        }
    };
    if interrupted {
        return Err(execution.interrupted().into());
    }
    if let Stopped::BudgetSpent { left } = stopped {
        println!(
            "the manifest's time budget is spent: {left} runs are left, `{}` makes them",
            execution.resume()
        );
    }
    let findings = Findings::of(&presentation);
    println!("{}", findings.text(report.as_deref()));
    fail_where_runs_failed(&presentation, &execution.records)?;
    match findings.broken() {
        broken if broken > 0 && options.check => Err(Ended::Findings { findings: broken }.into()),
        _ => Ok(()),
    }
}

/// A run that failed was not done. Under a cap, running out of memory or of time is an answer.
fn fail_where_runs_failed(presentation: &Presentation, records: &[Record]) -> anyhow::Result<()> {
    let is_bad = |record: &&Record| match record.status {
        Status::Ok | Status::Skipped => false,
        Status::Oom | Status::Timeout => record.host_cap_bytes.is_none(),
        Status::Failed => true,
    };
    let bad = records.iter().filter(is_bad).count();
    if bad > 0 {
        return Err(Ended::RunsFailed {
            bad,
            all: records.len(),
            records: presentation.results.join("runs.csv").display().to_string(),
        }
        .into());
    }
    Ok(())
}

fn override_matrix(manifest: &mut Manifest, options: &RunOptions) -> Result<(), Ended> {
    for name in &options.only {
        if !manifest.names().contains(&&**name) {
            return Err(Ended::Usage(format!(
                "--only: {}",
                manifest::unknown_experiment(name, manifest.names().into_iter())
            )));
        }
    }
    if !options.only.is_empty() {
        let is_wanted = |name: &str| options.only.iter().any(|only| only == name);
        manifest.experiments.retain(|name| is_wanted(name));
        manifest
            .externals
            .retain(|external| is_wanted(&external.name));
    }
    if !options.sizes.is_empty() {
        manifest.sizes = options.sizes.clone();
        manifest.software_sizes = None;
    }
    match &options.devices[..] {
        [] => {}
        [auto] if auto == "auto" => manifest.devices = Devices::Auto,
        devices => {
            let parsed = devices
                .iter()
                .map(|device| manifest::parse_device(device))
                .collect();
            let parsed: Result<Vec<_>, _> = parsed;
            let parsed = parsed.map_err(|error| Ended::Usage(format!("--device: {error}")))?;
            manifest.devices = Devices::These(parsed);
        }
    }
    if let Some(repeats) = options.repeats {
        manifest.repeats = repeats as u32;
        manifest.repeats_of = Vec::new();
    }
    Ok(())
}

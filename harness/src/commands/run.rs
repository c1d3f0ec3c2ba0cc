//! `harness run`: from the manifest to the table.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use lab::Status;

use super::dry_run;
use super::plot::{default_plots, present};
use crate::checkpoints::Store;
use crate::cli::RunArgs;
use crate::execution::{Execution, Stopped};
use crate::executor::Executor;
use crate::exit::Ended;
use crate::machine::{self, Machine};
use crate::manifest::{self, Devices, Manifest};
use crate::plan::{Planned, plan};
use crate::record::{Record, Results};
use crate::supply::Supply;
use crate::{interrupt, table};

pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let mut manifest = Manifest::load(&locate(&args.manifest))?;
    override_matrix(&mut manifest, args)?;
    interrupt::watch()?;
    let store = Store::new(args.store.checkpoints.clone());
    let supply = Supply::new(&store, args, &mut manifest);
    let devices = lab::find_devices();
    let runs = plan(&manifest, &devices);
    if args.dry_run {
        dry_run::print(&runs, &supply, &manifest);
        return Ok(());
    }

    let machine = Machine::detect(args.machine.as_deref(), &devices, store.root());
    let out = args.out.clone().unwrap_or_else(|| {
        let mut folder = manifest.name.clone();
        if let Some(file) = &args.checkpoint {
            folder = format!(
                "{folder}-{}",
                file.file_stem().unwrap_or_default().to_string_lossy()
            );
        }
        Path::new("results").join(&machine.machine).join(folder)
    });
    store.check_disk(
        supply.missing_bytes(&runs),
        manifest.limits.min_free_disk_bytes,
    )?;
    let plots = args.plots.clone().unwrap_or_else(|| default_plots(&out));
    if !args.resume {
        set_aside(&out)?;
    }
    let (mut results, mut records) = Results::open(&out)?;
    let done: HashSet<String> = records.iter().map(|record| record.run_id.clone()).collect();
    let missing: Vec<&Planned> = runs
        .iter()
        .filter(|run| !done.contains(&run.id()))
        .collect();
    if !done.is_empty() {
        eprintln!(
            "{} runs are recorded already, {} are missing",
            done.len(),
            missing.len()
        );
    }
    write_machine(&machine, &out)?;
    let execution = Execution {
        args,
        manifest: &manifest,
        machine: &machine.machine,
        commit: machine::commit(),
        out: &out,
        executor: Executor::new(manifest.limits.timeout_seconds)?,
        supply,
    };
    let stopped = execution.run_all(&missing, &mut results, &mut records)?;
    let interrupted = stopped == Stopped::Interrupted;
    if records.is_empty() && interrupted {
        return Err(execution.interrupted().into());
    }
    let lines = present(&out, &plots, &records)?;
    println!("{}", table::terminal(&lines));
    println!("results: {}\ncharts:  {}", out.display(), plots.display());
    if interrupted {
        return Err(execution.interrupted().into());
    }
    if let Stopped::BudgetSpent { left } = stopped {
        println!(
            "the manifest's time budget is spent: {left} runs are left, `{}` makes them",
            execution.resume()
        );
    }
    let is_bad = |record: &&Record| !matches!(record.status, Status::Ok | Status::Skipped);
    match records.iter().filter(is_bad).count() {
        0 => Ok(()),
        bad => Err(Ended::RunsFailed {
            bad,
            all: records.len(),
            records: out.join("runs.csv").display().to_string(),
        }
        .into()),
    }
}

/// A file, or the name of a manifest that comes with the harness.
fn locate(manifest: &Path) -> PathBuf {
    let named = Path::new("harness/manifests")
        .join(manifest)
        .with_extension("toml");
    match manifest.exists() || !named.exists() {
        true => manifest.to_owned(),
        false => named,
    }
}

fn override_matrix(manifest: &mut Manifest, args: &RunArgs) -> Result<(), Ended> {
    for name in &args.only {
        if !manifest.experiments.iter().any(|known| known == name) {
            let known = manifest.experiments.iter().copied();
            return Err(Ended::Usage(format!(
                "--only: {}",
                manifest::unknown("experiment", name, known)
            )));
        }
    }
    if !args.only.is_empty() {
        manifest
            .experiments
            .retain(|name| args.only.iter().any(|only| only == name));
    }
    if !args.sizes.is_empty() {
        manifest.sizes = args.sizes.clone();
        manifest.software_sizes = None;
    }
    match &args.devices[..] {
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
    manifest.repeats = args.repeats.unwrap_or(manifest.repeats);
    Ok(())
}

/// What was recorded there before is kept under another name.
fn set_aside(out: &Path) -> anyhow::Result<()> {
    if !out.join("runs.csv").exists() {
        return Ok(());
    }
    // To the nanosecond: two runs of a tiny manifest may end in one second.
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S.%9fZ");
    let mut aside = out.as_os_str().to_owned();
    aside.push(format!("-until-{now}"));
    std::fs::rename(out, &aside)
        .with_context(|| format!("{}: the results there cannot be moved", out.display()))?;
    eprintln!("earlier results are kept in {}", aside.display());
    Ok(())
}

fn write_machine(machine: &Machine, out: &Path) -> anyhow::Result<()> {
    let path = out.join("machine.toml");
    std::fs::write(&path, toml::to_string(machine)?)
        .with_context(|| format!("{}: cannot be written", path.display()))
}

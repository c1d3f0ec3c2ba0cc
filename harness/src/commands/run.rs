//! `harness run`: from the manifest to the table.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use checkpoint::{Dtype, Format};
use comfy_table::CellAlignment;
use gpt2::Size;
use indicatif::{ProgressBar, ProgressStyle};
use lab::{Outcome, Reads, Status};

use super::list;
use super::plot::{default_plots, present};
use crate::checkpoints::{Ready, Store};
use crate::cli::RunArgs;
use crate::executor::Executor;
use crate::exit::Ended;
use crate::machine::{self, Machine};
use crate::manifest::{self, Devices, Manifest};
use crate::plan::{Planned, plan};
use crate::record::{Record, Results, SCHEMA};
use crate::worker::WorkerArgs;
use crate::{interrupt, table, units};

pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let mut manifest = Manifest::load(&locate(&args.manifest))?;
    override_matrix(&mut manifest, args)?;
    let store = Store::new(args.store.checkpoints.clone());
    let checkpoints = Checkpoints::new(&store, args, &mut manifest);
    let devices = lab::find_devices();
    let runs = plan(&manifest, &devices);
    if args.dry_run {
        print_plan(&runs, &checkpoints, &manifest);
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
    store.check_disk(
        checkpoints.missing_bytes(&missing),
        manifest.limits.min_free_disk_bytes,
    )?;

    interrupt::watch()?;
    let session = Session {
        args,
        manifest: &manifest,
        machine: &machine.machine,
        commit: machine::commit(),
        out: &out,
        executor: Executor::new(manifest.limits.timeout_seconds)?,
        checkpoints,
    };
    let stopped = session.run_all(&missing, &mut results, &mut records)?;
    let interrupted = stopped == Stopped::Interrupted;
    if records.is_empty() && interrupted {
        return Err(session.interrupted().into());
    }
    let lines = present(&out, &plots, &records)?;
    println!("{}", table::terminal(&lines));
    println!("results: {}\ncharts:  {}", out.display(), plots.display());
    if interrupted {
        return Err(session.interrupted().into());
    }
    if let Stopped::BudgetSpent { left } = stopped {
        println!(
            "the manifest's time budget is spent: {left} runs are left, `{}` makes them",
            session.resume()
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

/// The checkpoints of the planned runs.
struct Checkpoints<'a> {
    store: &'a Store,
    prepared_format: Format,
    /// The user's own, or why it cannot be loaded.
    imported: Option<Result<Ready, String>>,
}

impl<'a> Checkpoints<'a> {
    /// Imports the user's checkpoint, where there is one, and lets it decide size and dtype.
    fn new(store: &'a Store, args: &RunArgs, manifest: &mut Manifest) -> Checkpoints<'a> {
        let imported = args.checkpoint.as_deref().map(|file| {
            let size = args.sizes.first().copied();
            store
                .import(file, size)
                .map_err(|error| format!("{error:#}"))
        });
        if let Some(Ok(ready)) = &imported {
            manifest.sizes = vec![ready.size];
            manifest.software_sizes = None;
            manifest.dtypes = vec![ready.dtype];
            if !ready.ignored.is_empty() {
                let (count, first) = (ready.ignored.len(), &ready.ignored[0]);
                eprintln!(
                    "{count} mask buffers of the checkpoint are no weights and are ignored ({first}, …)"
                );
            }
        }
        Checkpoints {
            store,
            prepared_format: manifest.format,
            imported,
        }
    }

    fn ready(&self, run: &Planned) -> Result<Ready, String> {
        match &self.imported {
            Some(imported) => imported.clone(),
            None => Ok(self.store.prepared(run.size, run.dtype)),
        }
    }

    fn format(&self, run: &Planned) -> Option<Format> {
        let ready = self.ready(run).ok();
        let state_dict = ready.map_or(self.prepared_format, |ready| {
            ready.state_dict_format(self.prepared_format)
        });
        run.format(state_dict)
    }

    fn missing_bytes(&self, runs: &[&Planned]) -> u64 {
        let mut seen = HashSet::new();
        let bytes = runs.iter().filter_map(|run| {
            let format = self.format(run)?;
            let is_new = seen.insert((run.size, run.dtype, format));
            let ready = self
                .ready(run)
                .ok()
                .filter(|_| is_new && run.device.state.is_ok())?;
            Some(self.store.missing_bytes(&ready, format))
        });
        bytes.sum()
    }
}

/// A plan in execution.
struct Session<'a> {
    args: &'a RunArgs,
    manifest: &'a Manifest,
    machine: &'a str,
    commit: Option<(String, bool)>,
    out: &'a Path,
    executor: Executor,
    checkpoints: Checkpoints<'a>,
}

/// Checkpoints made sure of in this session, and what became of it.
type Prepared = HashMap<(Size, Dtype, Format), Result<(), String>>;

/// Why no further run is made.
#[derive(Debug, PartialEq)]
enum Stopped {
    AllDone,
    BudgetSpent { left: usize },
    Interrupted,
}

impl Session<'_> {
    /// Makes the runs, and records each as soon as it ends.
    fn run_all(
        &self,
        runs: &[&Planned],
        results: &mut Results,
        records: &mut Vec<Record>,
    ) -> anyhow::Result<Stopped> {
        let start = Instant::now();
        let bar = ProgressBar::new(runs.len() as u64);
        let style = "{bar:24} {pos}/{len} {elapsed_precise} {wide_msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
        bar.enable_steady_tick(Duration::from_millis(200));
        let mut prepared = Prepared::new();
        for (number, run) in runs.iter().enumerate() {
            let budget = self.manifest.limits.budget_seconds.map(Duration::from_secs);
            if budget.is_some_and(|budget| start.elapsed() > budget) {
                bar.finish_and_clear();
                return Ok(Stopped::BudgetSpent {
                    left: runs.len() - number,
                });
            }
            bar.set_message(run.label());
            let started_at = now();
            let Some(outcome) = self.run_one(run, &mut prepared)? else {
                bar.finish_and_clear();
                return Ok(Stopped::Interrupted);
            };
            let mut record = self.record(run, started_at);
            record.fill(&outcome);
            results.append(&record, &outcome.timeline)?;
            let told = format!("{:<52} {}", run.label(), tell(&outcome));
            match bar.is_hidden() {
                true => eprintln!("{told}"),
                false => bar.println(told),
            }
            records.push(record);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(Stopped::AllDone)
    }

    /// `None` if it was interrupted.
    fn run_one(&self, run: &Planned, prepared: &mut Prepared) -> anyhow::Result<Option<Outcome>> {
        if interrupt::requested() {
            return Ok(None);
        }
        if let Some(reason) = run.obstacle(machine::available_memory_bytes()) {
            return Ok(Some(Outcome::ended(Status::Skipped, reason)));
        }
        match self.worker_args(run, prepared) {
            Ok(args) => Ok(self.executor.execute(&args)?),
            Err(reason) => Ok(Some(Outcome::ended(Status::Failed, reason))),
        }
    }

    /// Makes sure of everything that the run needs on disk.
    fn worker_args(&self, run: &Planned, prepared: &mut Prepared) -> Result<WorkerArgs, String> {
        let mut args = WorkerArgs {
            experiment: run.experiment.name.to_owned(),
            size: run.size,
            device: run.device.spec,
            dtype: run.dtype,
            cache: run.cache,
            checkpoint: None,
            digests: None,
            reference: None,
            save_logits: None,
            forward_in_software: run.forward_in_software || self.args.save_logits,
        };
        if self.args.save_logits {
            let file = format!("{}.safetensors", run.id());
            args.save_logits = Some(self.out.join("logits").join(file));
        }
        let Some(format) = self.checkpoints.format(run) else {
            return Ok(args);
        };
        let ready = self.checkpoints.ready(run)?;
        let key = (run.size, run.dtype, format);
        prepared
            .entry(key)
            .or_insert_with(|| {
                let store = self.checkpoints.store;
                store
                    .prepare(&ready, format)
                    .map_err(|error| format!("{error:#}"))
            })
            .clone()?;
        args.checkpoint = Some(ready.path(format));
        args.digests = Some(ready.sidecar());
        args.reference = Some(match &self.args.reference {
            Some(given) => given.clone(),
            None => reference(&ready, format)?,
        });
        Ok(args)
    }

    fn record(&self, run: &Planned, started_at: String) -> Record {
        let footprint = run.footprint();
        Record {
            schema: SCHEMA,
            run_id: run.id(),
            manifest: self.manifest.name.clone(),
            manifest_sha256: self.manifest.digest.clone(),
            commit: self.commit.as_ref().map(|(commit, _)| commit.clone()),
            dirty: self.commit.as_ref().map(|(_, dirty)| *dirty),
            started_at,
            machine: self.machine.to_owned(),
            device: run.device.spec.to_string(),
            backend: run.device.spec.backend.name().to_owned(),
            memory_model: run.memory_model().name().to_owned(),
            experiment: run.experiment.name.to_owned(),
            model: run.size.to_string(),
            dtype: run.dtype.to_string(),
            format: self
                .checkpoints
                .format(run)
                .map(|format| format.to_string()),
            parameters: run.size.config().parameters(),
            model_bytes: footprint.model_bytes,
            largest_tensor_bytes: footprint.largest_tensor_bytes,
            cache: run.cache.to_string(),
            resident_fraction: None,
            host_cap_bytes: None,
            repeat: run.repeat,
            status: Status::Failed,
            reason: None,
            verified: false,
            load_seconds: None,
            first_forward_seconds: None,
            host_heap_peak_bytes: None,
            host_rss_peak_bytes: None,
            host_anon_peak_bytes: None,
            host_file_peak_bytes: None,
            host_peak_phase: None,
            device_in_use_peak_bytes: None,
            device_reserved_peak_bytes: None,
            device_driver_peak_bytes: None,
            device_peak_phase: None,
            bytes_read: None,
            host_contract_bytes: None,
            device_contract_bytes: None,
            contract_held: None,
        }
    }

    fn interrupted(&self) -> Ended {
        Ended::Interrupted {
            resume: self.resume(),
        }
    }

    /// The command line that goes on with this one.
    fn resume(&self) -> String {
        let words = std::env::args().skip(1).filter(|word| word != "--resume");
        format!("harness {} --resume", words.collect::<Vec<_>>().join(" "))
    }
}

fn now() -> String {
    let now = jiff::Timestamp::now().round(jiff::Unit::Second);
    now.expect("now can be rounded to a second").to_string()
}

/// The reference logits of a checkpoint, computed once, in a process of its own: it takes the model's memory
/// for a moment, which is not the harness's to keep.
fn reference(ready: &Ready, format: Format) -> Result<PathBuf, String> {
    let path = ready.reference();
    if !path.exists() {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let output = std::process::Command::new(program)
            .arg("reference")
            .arg("--checkpoint")
            .arg(ready.path(format))
            .args(["--size", &ready.size.to_string()])
            .arg("--to")
            .arg(&path)
            .output()
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "the reference logits could not be computed: {}",
                said.trim()
            ));
        }
    }
    Ok(path)
}

fn tell(outcome: &Outcome) -> String {
    match (outcome.status, outcome.load_seconds) {
        (Status::Ok, Some(seconds)) => {
            let host = outcome.host_heap_peak_bytes.map(units::bytes);
            let device = outcome.device_in_use_peak_bytes.map(units::bytes);
            let host = host
                .map(|host| format!(", host heap {host}"))
                .unwrap_or_default();
            let device = device
                .map(|device| format!(", device {device}"))
                .unwrap_or_default();
            format!("ok, {}{host}{device}", units::seconds(seconds))
        }
        (status, _) => format!(
            "{status}: {}",
            outcome.reason.as_deref().unwrap_or_default()
        ),
    }
}

fn print_plan(runs: &[Planned], checkpoints: &Checkpoints<'_>, manifest: &Manifest) {
    let available = machine::available_memory_bytes();
    let mut table = list::table(&[
        "run",
        "predicted host heap",
        "predicted device",
        "will be run",
    ]);
    let mut seconds = 0.0;
    for run in runs {
        let contract = (run.experiment.contract)(run.memory_model(), run.footprint());
        let device = contract.device_bytes.map_or("–".to_owned(), units::bytes);
        let obstacle = run.obstacle(available);
        if obstacle.is_none() {
            seconds += rough_seconds(run);
        }
        let will = obstacle.map_or("yes".to_owned(), |reason| format!("no: {reason}"));
        table.add_row([
            run.label(),
            units::bytes(contract.host_heap_bytes),
            device,
            will,
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let all: Vec<&Planned> = runs.iter().collect();
    let disk = checkpoints.missing_bytes(&all);
    println!("{table}");
    println!("runs:   {}", runs.len());
    println!("disk:   {} of checkpoints to prepare", units::bytes(disk));
    println!("time:   very roughly {} min", (seconds / 60.0).ceil());
    println!("limit:  {} s for a run", manifest.limits.timeout_seconds);
}

/// A guess for a person who wonders whether to fetch a coffee, of a machine that handles half a gibibyte a
/// second: the model once for each of its copies, and once more to verify it.
fn rough_seconds(run: &Planned) -> f64 {
    let bytes = match run.experiment.reads {
        Reads::Nothing => run.footprint().model_bytes,
        Reads::StateDict | Reads::PerTensor => run.predicted_ram_bytes(),
    };
    (bytes + run.footprint().model_bytes) as f64 / f64::from(1 << 29)
}

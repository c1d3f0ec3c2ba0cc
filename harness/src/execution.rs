//! A plan in execution: each run made, and recorded as soon as it ends.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use checkpoint::{Dtype, Format};
use gpt2::Size;
use indicatif::{ProgressBar, ProgressStyle};
use lab::{Outcome, Status};

use crate::cli::RunArgs;
use crate::executor::Executor;
use crate::exit::Ended;
use crate::manifest::Manifest;
use crate::plan::Planned;
use crate::record::{Record, Results};
use crate::supply::{Supply, reference};
use crate::worker::WorkerArgs;
use crate::{interrupt, machine, units};

/// What all runs of a plan have in common.
pub struct Execution<'a> {
    pub args: &'a RunArgs,
    pub manifest: &'a Manifest,
    pub machine: &'a str,
    pub commit: Option<(String, bool)>,
    pub out: &'a Path,
    pub executor: Executor,
    pub supply: Supply<'a>,
}

/// Checkpoints made sure of in this execution, and what became of it.
type Prepared = HashMap<(Size, Dtype, Format), Result<(), String>>;

/// Why no further run is made.
#[derive(Debug, PartialEq)]
pub enum Stopped {
    AllDone,
    BudgetSpent { left: usize },
    Interrupted,
}

impl Execution<'_> {
    /// Makes the runs, and records each as soon as it ends.
    pub fn run_all(
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
            Err(_) if interrupt::requested() => Ok(None),
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
        let Some(format) = self.supply.format(run) else {
            return Ok(args);
        };
        let ready = self.supply.ready(run)?;
        let key = (run.size, run.dtype, format);
        prepared
            .entry(key)
            .or_insert_with(|| {
                let store = self.supply.store;
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
            format: self.supply.format(run).map(|format| format.to_string()),
            parameters: run.size.config().parameters(),
            model_bytes: footprint.model_bytes,
            largest_tensor_bytes: footprint.largest_tensor_bytes,
            cache: run.cache.to_string(),
            repeat: run.repeat,
            ..Record::unmeasured()
        }
    }

    pub fn interrupted(&self) -> Ended {
        Ended::Interrupted {
            resume: self.resume(),
        }
    }

    /// The command line that goes on with this one.
    pub fn resume(&self) -> String {
        let words = std::env::args().filter(|word| word != "--resume");
        format!("{} --resume", words.collect::<Vec<_>>().join(" "))
    }
}

fn now() -> String {
    let now = jiff::Timestamp::now().round(jiff::Unit::Second);
    now.expect("now can be rounded to a second").to_string()
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

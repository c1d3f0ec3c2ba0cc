//! A plan in execution: each run made, and recorded as soon as it ends.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use checkpoint::{Dtype, Format};
use gpt2::Size;
use gpt2::layout::Reading;
use lab::{Outcome, Status};

use crate::cli::RunOptions;
use crate::configuration::Code;
use crate::executor::Executor;
use crate::exit::Ended;
use crate::external::{Answer, External, Request};
use crate::host_cap::HostCap;
use crate::manifest::Manifest;
use crate::plan::Planned;
use crate::progress::Progress;
use crate::record::Record;
use crate::results::Results;
use crate::smallest_cap::Search;
use crate::supply::{Supply, reference};
use crate::technique::Technique;
use crate::worker::Specification;
use crate::{decision, exit, interrupt, machine, units};

/// What all runs of a plan have in common, and what is recorded of them.
pub struct Execution<'a> {
    pub options: &'a RunOptions,
    pub manifest: &'a Manifest,
    pub machine: &'a str,
    pub code: Code,
    pub executor: Executor,
    pub supply: Supply<'a>,
    pub results: Results,
    pub records: Vec<Record>,
    pub prepared: Prepared,
    /// The set-up commands that were run, and what became of each.
    pub set_up: HashMap<Vec<String>, Result<(), String>>,
}

/// Checkpoints made sure of in this execution, and what became of it.
pub type Prepared = HashMap<(Size, Dtype, Format), Result<(), String>>;

/// What a run reads.
struct Inputs {
    checkpoint: PathBuf,
    reading: Reading,
    /// The logits that it is compared with.
    reference: PathBuf,
}

/// Why no further run is made.
#[derive(Debug, PartialEq)]
pub enum Stopped {
    AllDone,
    BudgetSpent { left: usize },
    Interrupted,
}

impl Execution<'_> {
    /// The recorded row of a run, where this code has made it on this machine.
    pub fn recorded(&self, run: &Planned) -> Option<&Record> {
        let key = self.record(run, String::new()).key();
        self.records.iter().find(|record| record.key() == key)
    }

    /// Brings what the manifest's commands depend on, each once, before anything is measured. A command whose
    /// set-up fails is skipped with the reason.
    pub fn set_up_externals(&mut self) {
        for external in &self.manifest.externals {
            if let Some(setup) = &external.setup
                && !self.set_up.contains_key(setup)
            {
                eprintln!("setting up: {}", setup.join(" "));
                self.set_up
                    .insert(setup.clone(), external.set_up(self.executor.caps()));
            }
        }
    }

    /// Makes the runs that are not recorded yet, and records each as soon as it ends.
    pub fn run_all(&mut self, runs: &[Planned]) -> anyhow::Result<Stopped> {
        let missing: Vec<&Planned> = runs
            .iter()
            .filter(|run| self.recorded(run).is_none())
            .collect();
        self.tell_recorded(runs.len() - missing.len(), missing.len());
        let stopped = self.make_each(&missing)?;
        match stopped {
            Stopped::AllDone => self.decide(runs),
            other => Ok(other),
        }
    }

    fn make_each(&mut self, runs: &[&Planned]) -> anyhow::Result<Stopped> {
        self.each(runs, |execution, run, progress| {
            Ok(execution.make(run, progress)?.is_some())
        })
    }

    /// Repeats what claims about time are undecided for, until they are decided or the time for that is spent.
    fn decide(&mut self, runs: &[Planned]) -> anyhow::Result<Stopped> {
        let start = Instant::now();
        let budget = Duration::from_secs(self.manifest.limits.decide_seconds);
        while start.elapsed() < budget {
            let pass = decision::next_pass(self.manifest, runs, &self.records);
            let Some(first) = pass.first() else { break };
            eprintln!(
                "claims about time are undecided: {} runs are made once more (repeat {})",
                pass.len(),
                first.repeat
            );
            let pass: Vec<&Planned> = pass.iter().collect();
            let stopped = self.make_each(&pass)?;
            if stopped != Stopped::AllDone {
                return Ok(stopped);
            }
        }
        Ok(Stopped::AllDone)
    }

    /// Makes each run, and then searches for the smallest host cap that it survives in. Every probe is a run of
    /// its own, and recorded as any other: an interrupted search is followed again from its records.
    pub fn search_all(&mut self, runs: &[Planned]) -> anyhow::Result<Stopped> {
        self.tell_recorded(self.records.len(), 0);
        let runs: Vec<&Planned> = runs.iter().collect();
        self.each(&runs, |execution, run, progress| {
            execution.search(run, progress)
        })
    }

    fn tell_recorded(&self, done: usize, missing: usize) {
        let of_other_code = self
            .records
            .iter()
            .filter(|record| record.code() != self.code)
            .count();
        if of_other_code > 0 {
            eprintln!("kept {of_other_code} runs recorded by other commits");
        }
        if done > 0 {
            let missing = match missing {
                0 => String::new(),
                missing => format!(", {missing} are missing"),
            };
            eprintln!("{done} runs are recorded already{missing}");
        }
    }

    /// Does something with each run until all are done, the budget is spent, or it was interrupted: then `act`
    /// returns false.
    fn each(
        &mut self,
        runs: &[&Planned],
        act: impl Fn(&mut Self, &Planned, &Progress) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Stopped> {
        let progress = Progress::begin(runs, self.manifest);
        for (number, run) in runs.iter().enumerate() {
            if progress.is_budget_spent() {
                progress.finish();
                return Ok(Stopped::BudgetSpent {
                    left: runs.len() - number,
                });
            }
            if !act(self, run, &progress)? {
                progress.finish();
                return Ok(Stopped::Interrupted);
            }
            progress.next();
        }
        progress.finish();
        Ok(Stopped::AllDone)
    }

    /// Whether the search came to its end.
    fn search(&mut self, run: &Planned, progress: &Progress) -> anyhow::Result<bool> {
        let Some(free) = self.make_once(run, progress)? else {
            return Ok(false);
        };
        if !free.is_measured() {
            // What does not load with all the memory there is needs no search; its row says why.
            return Ok(true);
        }
        // What cannot be taken back: file pages can, and are, before a run is ended.
        let guess = free.measures.host_anon_peak_bytes;
        let guess = guess.unwrap_or_else(|| run.predicted_ram_bytes());
        let available = machine::available_memory_bytes().unwrap_or(u64::MAX);
        let mut search = Search::new(run.footprint().model_bytes, guess, available);
        while let Some(cap_bytes) = search.next_bytes() {
            let probe = Planned {
                host_cap: HostCap::Bytes(cap_bytes),
                forward_in_software: false,
                ..run.clone()
            };
            let Some(record) = self.make_once(&probe, progress)? else {
                return Ok(false);
            };
            if record.status == Status::Skipped {
                return Ok(true);
            }
            search.learn(cap_bytes, record.is_measured());
        }
        Ok(true)
    }

    /// [`Execution::make`], unless it is recorded already.
    fn make_once(&mut self, run: &Planned, progress: &Progress) -> anyhow::Result<Option<Record>> {
        match self.recorded(run) {
            Some(record) => Ok(Some(record.clone())),
            None => Ok(self.make(run, progress)?.cloned()),
        }
    }

    /// Makes a run, records it, and tells of it. `None` if it was interrupted.
    fn make(&mut self, run: &Planned, progress: &Progress) -> anyhow::Result<Option<&Record>> {
        progress.running(&run.label());
        let mut record = self.record(run, now());
        let Some(Answer { outcome, framework }) = self.run_one(run)? else {
            return Ok(None);
        };
        record.framework = framework;
        record.fill(&outcome);
        self.results.append(&record, &outcome.timeline)?;
        progress.ended(&run.label(), &tell(&outcome));
        self.records.push(record);
        Ok(self.records.last())
    }

    /// `None` if it was interrupted.
    fn run_one(&mut self, run: &Planned) -> anyhow::Result<Option<Answer>> {
        if interrupt::requested() {
            return Ok(None);
        }
        if let Some(reason) = run.obstacle(machine::available_memory_bytes()) {
            return Ok(Some(Answer::ended(Status::Skipped, reason)));
        }
        let needed = match &run.technique {
            Technique::Ours(experiment) => self
                .specification(run, experiment.name)
                .map(|specification| self.executor.execute(specification)),
            Technique::External(external) => self.ask(run, external),
        };
        match needed {
            Ok(answer) => Ok(answer?),
            Err(_) if interrupt::requested() => Ok(None),
            Err(reason) => Ok(Some(Answer::ended(Status::Failed, reason))),
        }
    }

    /// One run of a command; outside, why there is nothing that it could load.
    fn ask(
        &mut self,
        run: &Planned,
        external: &External,
    ) -> Result<std::io::Result<Option<Answer>>, String> {
        let setup = external.setup.as_ref();
        if let Some(Err(reason)) = setup.and_then(|setup| self.set_up.get(setup)) {
            let reason = format!("its set-up failed: {reason}");
            return Ok(Ok(Some(Answer::ended(Status::Skipped, reason))));
        }
        let ready = self.ready(run)?;
        let inputs = ready.ok_or("a command reads a checkpoint")?;
        let request = Request {
            config: run.size.config(),
            dtype: run.dtype,
            device: run.device.spec,
            checkpoint: &inputs.checkpoint,
            format: external.format,
            threads: run.tuning.threads,
            cache: run.cache,
            cap_bytes: run.host_cap_bytes(),
            reference: &inputs.reference,
            is_reference_given: self.options.reference.is_some(),
            timeout: self.timeout(),
        };
        Ok(self.executor.ask(external, &request))
    }

    /// What a run may take, and what is made for it.
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.manifest.limits.timeout_seconds)
    }

    /// Makes sure of the checkpoint that a run reads, and of the logits it is compared with. `None` where it reads
    /// none.
    fn ready(&mut self, run: &Planned) -> Result<Option<Inputs>, String> {
        let Some(format) = self.supply.format(run) else {
            return Ok(None);
        };
        let ready = self.supply.ready(run);
        let as_it_is = ready.as_it_is(format, run.technique.reads_any());
        if as_it_is.is_none() {
            let key = (run.size, run.dtype, format);
            let store = self.supply.store;
            self.prepared
                .entry(key)
                .or_insert_with(|| {
                    store
                        .prepare(&ready, format)
                        .map_err(|error| exit::message(&error))
                })
                .clone()?;
        }
        let reference = match &self.options.reference {
            Some(given) => given.clone(),
            None => reference(&ready, format, self.timeout())?,
        };
        let (checkpoint, reading) =
            as_it_is.unwrap_or_else(|| (ready.path(format), Reading::default()));
        Ok(Some(Inputs {
            checkpoint,
            reading,
            reference,
        }))
    }

    /// Makes sure of everything that the run needs on disk.
    fn specification(&mut self, run: &Planned, experiment: &str) -> Result<Specification, String> {
        let mut specification = Specification {
            experiment: experiment.to_owned(),
            size: run.size,
            device: run.device.spec,
            dtype: run.dtype,
            tuning: run.tuning,
            cache: run.cache,
            checkpoint: None,
            reading: Reading::default(),
            digests: None,
            reference: None,
            is_reference_given: self.options.reference.is_some(),
            save_logits: None,
            forward_in_software: run.forward_in_software || self.options.save_logits,
            host_cap_bytes: run.host_cap_bytes(),
            cgroup: None,
            last_words: None,
            only_time: false,
        };
        if self.options.save_logits {
            let file = format!("{}.safetensors", run.id(self.manifest, &self.code));
            specification.save_logits = Some(self.results.folder().join("logits").join(file));
        }
        if let Some(inputs) = self.ready(run)? {
            specification.checkpoint = Some(inputs.checkpoint);
            specification.reading = inputs.reading;
            specification.digests = Some(self.supply.ready(run).sidecar());
            specification.reference = Some(inputs.reference);
        }
        Ok(specification)
    }

    fn record(&self, run: &Planned, started_at: String) -> Record {
        let footprint = run.footprint();
        let format = self.supply.format(run);
        let ready = format.map(|_| self.supply.ready(run));
        let cap_bytes = run.host_cap_bytes();
        let mut record = Record {
            run_id: run.id(self.manifest, &self.code),
            manifest: self.manifest.name.clone(),
            manifest_sha256: self.manifest.digest.clone(),
            commit: self.code.commit.clone(),
            dirty: self.code.dirty,
            started_at,
            machine: self.machine.to_owned(),
            device: run.device.spec.to_string(),
            backend: run.device.spec.backend.name().to_owned(),
            memory_model: run.memory_model().name().to_owned(),
            experiment: run.technique.name().to_owned(),
            model: run.size.to_string(),
            dtype: run.dtype.to_string(),
            format: format.map(|format| format.to_string()),
            parameters: run.size.config().parameters(),
            model_bytes: footprint.model_bytes,
            largest_tensor_bytes: footprint.largest_tensor_bytes,
            cache: run.cache.to_string(),
            repeat: run.repeat,
            host_cap_bytes: cap_bytes,
            host_cap_mechanism: cap_bytes.and_then(|_| self.executor.caps().mechanism()),
            checkpoint: ready.map(|ready| ready.identity),
            driver: run.device.driver().map(str::to_owned),
            ..Record::unmeasured()
        };
        record.tune(run.tuned());
        record
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
    match (outcome.status, outcome.measures.load_seconds) {
        (Status::Ok, Some(seconds)) => {
            let host = outcome.measures.host_heap_peak_bytes.map(units::bytes);
            let device = outcome.measures.device_in_use_peak_bytes.map(units::bytes);
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

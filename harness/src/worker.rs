//! The hidden `worker` command: one run, described on the command line so that a person can repeat it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use checkpoint::Dtype;
use clap::Args;
use gpt2::Size;
use lab::{CacheState, Cgroup, DeviceSpec, HostLimits, Outcome, RunSpec, Status, Tuning};

use crate::checkpoints::Sidecar;
use crate::registry;

/// One run, as the harness starts it.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// Experiment to run
    #[arg(long)]
    pub experiment: String,
    /// Size of the model
    #[arg(long)]
    pub size: Size,
    /// Device to load to
    #[arg(long, default_value = "flex")]
    pub device: DeviceSpec,
    /// Dtype of the checkpoint
    #[arg(long, default_value = "f32")]
    pub dtype: Dtype,
    #[command(flatten)]
    pub tuning: TuningArgs,
    /// State of the page cache
    #[arg(long, default_value = "warm")]
    pub cache: CacheState,
    /// Checkpoint to load
    #[arg(long)]
    pub checkpoint: Option<PathBuf>,
    /// What its tensors are called, where no built-in layout fits
    #[arg(long, requires = "checkpoint")]
    pub layout: Option<PathBuf>,
    /// Digests of its tensors, as `harness prepare` writes them
    #[arg(long, requires = "checkpoint")]
    pub digests: Option<PathBuf>,
    /// Logits to compare with: a file with a tensor `logits` [1, 3, vocabulary]
    #[arg(long)]
    pub reference: Option<PathBuf>,
    /// Where to write the logits of the first forward
    #[arg(long)]
    pub save_logits: Option<PathBuf>,
    /// Run forward even where its kernels are compiled in software
    #[arg(long)]
    pub forward_in_software: bool,
    /// Host memory that the run may use above its baseline, in bytes
    #[arg(long, value_name = "BYTES")]
    pub host_cap: Option<u64>,
    /// Folder of a cgroup to run in
    #[arg(long)]
    pub cgroup: Option<PathBuf>,
    /// File that always tells what the run is doing
    #[arg(long)]
    pub last_words: Option<PathBuf>,
    /// Measure the load's time and nothing else
    #[arg(long)]
    pub only_time: bool,
}

/// What the technique works with.
#[derive(Debug, Clone, Copy, PartialEq, Args)]
pub struct TuningArgs {
    /// What may be on its way to a device at once, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Tuning::default().staging_bytes)]
    pub staging_bytes: u64,
    /// Threads that read
    #[arg(long, default_value_t = Tuning::default().threads)]
    pub threads: usize,
    /// Reads in flight
    #[arg(long, default_value_t = Tuning::default().queue_depth)]
    pub queue_depth: usize,
    /// Layers on the device at once, where they are streamed
    #[arg(long, default_value_t = Tuning::default().resident_layers)]
    pub resident_layers: usize,
}

impl Default for TuningArgs {
    fn default() -> Self {
        Tuning::default().into()
    }
}

impl From<Tuning> for TuningArgs {
    fn from(tuning: Tuning) -> Self {
        TuningArgs {
            staging_bytes: tuning.staging_bytes,
            threads: tuning.threads,
            queue_depth: tuning.queue_depth,
            resident_layers: tuning.resident_layers,
        }
    }
}

impl From<TuningArgs> for Tuning {
    fn from(args: TuningArgs) -> Self {
        Tuning {
            staging_bytes: args.staging_bytes,
            threads: args.threads,
            queue_depth: args.queue_depth,
            resident_layers: args.resident_layers,
        }
    }
}

impl WorkerArgs {
    /// The arguments behind the program's name that start this worker.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["worker".into()];
        let mut add = |flag: &str, value: OsString| args.extend([OsString::from(flag), value]);
        add("--experiment", self.experiment.clone().into());
        add("--size", self.size.to_string().into());
        add("--device", self.device.to_string().into());
        add("--dtype", self.dtype.to_string().into());
        add("--cache", self.cache.to_string().into());
        let tuning = self.tuning;
        add("--staging-bytes", tuning.staging_bytes.to_string().into());
        add("--threads", tuning.threads.to_string().into());
        add("--queue-depth", tuning.queue_depth.to_string().into());
        add(
            "--resident-layers",
            tuning.resident_layers.to_string().into(),
        );
        let paths = [
            ("--checkpoint", &self.checkpoint),
            ("--layout", &self.layout),
            ("--digests", &self.digests),
            ("--reference", &self.reference),
            ("--save-logits", &self.save_logits),
            ("--cgroup", &self.cgroup),
            ("--last-words", &self.last_words),
        ];
        for (flag, path) in paths {
            if let Some(path) = path {
                add(flag, path.clone().into());
            }
        }
        if let Some(bytes) = self.host_cap {
            args.extend(["--host-cap".into(), bytes.to_string().into()]);
        }
        let flags = [
            ("--forward-in-software", self.forward_in_software),
            ("--only-time", self.only_time),
        ];
        let set = flags.into_iter().filter(|(_, is_set)| *is_set);
        args.extend(set.map(|(flag, _)| flag.into()));
        args
    }
}

/// Runs and prints the outcome as one line of JSON. A run that fails is an outcome too.
pub fn work(args: &WorkerArgs) -> anyhow::Result<()> {
    // A killed harness must not leave a run behind that spoils the next one's numbers.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    println!("{}", serde_json::to_string(&outcome(args))?);
    Ok(())
}

fn outcome(args: &WorkerArgs) -> Outcome {
    let Some(experiment) = registry::find(&args.experiment) else {
        let reason = format!("unknown experiment `{}`", args.experiment);
        return Outcome::ended(Status::Failed, reason);
    };
    let digests = match args.digests.as_deref().map(Sidecar::load) {
        None => BTreeMap::new(),
        Some(Ok(sidecar)) => sidecar.digests,
        Some(Err(error)) => return Outcome::ended(Status::Failed, format!("{error:#}")),
    };
    experiment.execute(&RunSpec {
        config: args.size.config(),
        variant: experiment.name.to_owned(),
        tuning: args.tuning.into(),
        dtype: args.dtype,
        device: args.device,
        cache: args.cache,
        checkpoint: args.checkpoint.clone().unwrap_or_default(),
        layout: args.layout.clone(),
        digests,
        reference_logits: args.reference.clone(),
        save_logits: args.save_logits.clone(),
        forward_in_software: args.forward_in_software,
        host: HostLimits {
            cgroup: args.cgroup.as_deref().map(Cgroup::in_folder),
            cap_bytes: args.host_cap,
        },
        last_words: args.last_words.clone(),
        only_time: args.only_time,
    })
}

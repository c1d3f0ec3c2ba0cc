//! External commands: loaders in other languages and frameworks, in the same table and charts.
//!
//! ```text
//!  harness                                            command
//!  one line of JSON: what to load          ──────▶    imports what it needs
//!                                          ◀──────    {"event": "ready", "framework": "pytorch 2.9.1"}
//!  cache state, baseline, marks reset;
//!  `load`                                  ──────▶    loads
//!                                          ◀──────    {"event": "loaded"}
//!  marks read; `forward`                   ──────▶    forward on the tokens; writes the logits
//!                                          ◀──────    {"event": "done"}
//! ```
//!
//! Every number is taken by the harness, from outside: times between what is sent and what arrives, memory by the kernel's
//! instruments. The one that nobody sees from outside is told: `{"event": "loaded", "device_in_use_peak_bytes": 12}` is the most
//! of a GPU's memory that live tensors held during the load, as the command's framework counts it. A command that cannot do what is asked says `{"event": "failed", "reason": "…"}`. Whatever else it prints,
//! on standard error, is shown where it fails.

mod conversation;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use checkpoint::{Dtype, Format};
use gpt2::{Config, Size};
use lab::{
    DeviceSpec, Footprint, Kept, Logits, Measures, MemoryModel, Outcome, REFERENCE_TOKENS, Status,
    Tuning, VerifiedBy,
};
use meter::{CacheState, Cgroup, HostCaps, Outside};
use serde::Serialize;

pub use conversation::is_understood;
use conversation::{Conversation, Ended, Event, Message};

use crate::tree::{Pipes, Tree};
use crate::{interrupt, scratch};

/// So long may what brings a command's dependencies take: PyTorch by a slow network.
const SETUP_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// A command of the manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct External {
    pub name: String,
    pub summary: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// What brings its dependencies, once, before anything is measured.
    pub setup: Option<Vec<String>>,
    /// What it reads.
    pub format: Format,
    /// Where it stands in tables: what it loads to.
    pub devices: Vec<DeviceSpec>,
    /// At which of the manifest's sizes; at all of them where this is `None`.
    pub sizes: Option<Vec<Size>>,
}

/// One run of it.
pub struct Request<'a> {
    pub config: Config,
    pub dtype: Dtype,
    pub device: DeviceSpec,
    pub checkpoint: &'a Path,
    pub format: Format,
    pub threads: usize,
    pub cache: CacheState,
    pub cap_bytes: Option<u64>,
    /// What its logits are compared with.
    pub reference: &'a Path,
    /// Whether another program has computed it.
    pub is_reference_given: bool,
    pub timeout: Duration,
}

/// What a command is told.
#[derive(Serialize)]
struct Specification<'a> {
    protocol: u32,
    checkpoint: PathBuf,
    format: Format,
    dtype: Dtype,
    device: String,
    threads: usize,
    model: Dimensions,
    /// Token ids of one sequence.
    tokens: &'a [i32],
    /// Where to write the logits: f32, little-endian, row after row, `[tokens, vocabulary]`.
    logits: &'a Path,
}

#[derive(Serialize)]
struct Dimensions {
    vocabulary: usize,
    context: usize,
    embedding: usize,
    layers: usize,
    heads: usize,
    qkv_bias: bool,
    /// In what the model differs from the book's, by the words of free-form sizes; empty where in nothing. A command that
    /// cannot compute that says that it failed.
    variant: String,
}

/// What came of a run, and what it was made with.
pub struct Answer {
    pub outcome: Outcome,
    pub framework: Option<String>,
}

impl Answer {
    /// A run that ended without measurements.
    pub fn ended(status: Status, reason: impl Into<String>) -> Answer {
        Answer {
            outcome: Outcome::ended(status, reason),
            framework: None,
        }
    }
}

impl External {
    /// Brings its dependencies, in a cgroup of its own where there are any; the reason where that fails.
    pub fn set_up(&self, caps: &HostCaps) -> Result<(), String> {
        let Some(setup) = self.setup.as_deref() else {
            return Ok(());
        };
        let failed = |error| format!("`{}` cannot be run: {error}", self.setup_line());
        let pipes = Pipes {
            input: Stdio::null(),
            output: Stdio::from(std::io::stderr()),
            errors: Stdio::inherit(),
        };
        // Dropped behind the tree: it ends what has left it.
        let cgroup = caps.new_cgroup().ok().flatten();
        let mut tree = Tree::start(setup, pipes).map_err(failed)?;
        if let Some(cgroup) = &cgroup {
            // One that has ended is in none.
            let _ = cgroup.take(tree.pid());
        }
        let start = Instant::now();
        loop {
            match tree.try_wait().map_err(failed)? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("`{}` ended with {status}", self.setup_line())),
                None => {}
            }
            if interrupt::requested() {
                return Err(format!("`{}` was interrupted", self.setup_line()));
            }
            if start.elapsed() > SETUP_TIMEOUT {
                let minutes = SETUP_TIMEOUT.as_secs() / 60;
                return Err(format!(
                    "`{}` took longer than {minutes} min",
                    self.setup_line()
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn setup_line(&self) -> String {
        self.setup.as_deref().unwrap_or_default().join(" ")
    }

    /// One run in a fresh process. `None` if it was interrupted.
    pub fn run(
        &self,
        request: &Request<'_>,
        cgroup: Option<&Cgroup>,
    ) -> std::io::Result<Option<Answer>> {
        let logits = match scratch::file() {
            Ok(logits) => logits,
            Err(error) => return Ok(Some(Answer::ended(Status::Skipped, error.to_string()))),
        };
        let specification = Specification {
            protocol: 1,
            checkpoint: std::path::absolute(request.checkpoint)?,
            format: request.format,
            dtype: request.dtype,
            device: request.device.to_string(),
            threads: request.threads,
            model: Dimensions {
                vocabulary: request.config.vocabulary,
                context: request.config.context,
                embedding: request.config.embedding,
                layers: request.config.layers,
                heads: request.config.heads,
                qkv_bias: request.config.qkv_bias,
                variant: request.config.variant.to_string(),
            },
            tokens: &REFERENCE_TOKENS,
            logits: logits.path(),
        };
        let conversation = Conversation::begin(&self.command, request.timeout, |pid| {
            cgroup.map_or(Ok(()), |cgroup| cgroup.take(pid))
        });
        let mut conversation = match conversation {
            Ok(conversation) => conversation,
            Err(error) => {
                let command = self.command.join(" ");
                let reason = format!("`{command}` cannot be run: {error}");
                return Ok(Some(Answer::ended(Status::Skipped, reason)));
            }
        };
        let line = serde_json::to_string(&specification)?;
        match self.converse(&mut conversation, &line, request, cgroup, logits.path()) {
            Ok(answer) => Ok(Some(answer)),
            Err(Ended::Interrupted) => Ok(None),
            Err(ended) => {
                let oom_kills = cgroup.and_then(Cgroup::oom_kills).unwrap_or(0);
                let (status, reason) = conversation.why(ended, oom_kills);
                Ok(Some(Answer::ended(status, reason)))
            }
        }
    }

    fn converse(
        &self,
        conversation: &mut Conversation,
        specification: &str,
        request: &Request<'_>,
        cgroup: Option<&Cgroup>,
        logits: &Path,
    ) -> Result<Answer, Ended> {
        conversation.say(specification)?;
        let (_, ready) = conversation.hear(Event::Ready)?;
        let is_capped = request.cap_bytes.is_some();
        let resident_fraction = request
            .cache
            .establish(request.checkpoint, is_capped)
            .map_err(|error| Ended::Refused(Status::Skipped, error.to_string()))?;
        if let Some(cap_bytes) = request.cap_bytes {
            let cgroup = cgroup.ok_or_else(|| {
                let reason = "an external command can be capped by a cgroup only";
                Ended::Refused(Status::Skipped, reason.to_owned())
            })?;
            let capped = cgroup.cap(cap_bytes);
            capped.map_err(|reason| Ended::Refused(Status::Skipped, reason))?;
        }
        if request.cap_bytes.is_none() {
            // Its contract is not known: a state dict, and a model.
            let footprint = Footprint::new(&request.config, request.dtype, None, Tuning::default());
            meter::touch_free_memory(2 * footprint.model_bytes);
        }
        let watched = Outside::watch(conversation.pid(), cgroup);
        let load_from = conversation.say("load")?;
        let (loaded_at, loaded) = conversation.hear(Event::Loaded)?;
        let mut outcome = Outcome {
            reason: None,
            ..Outcome::ended(Status::Ok, "")
        };
        if let Some((peaks, disturbances)) = watched.map(Outside::finish) {
            outcome.measures = Measures::from(&peaks);
            outcome.measures.add_disturbances(disturbances);
            outcome.timeline = peaks.timeline;
        }
        outcome.measures.resident_fraction = resident_fraction;
        outcome.measures.device_in_use_peak_bytes = told(&loaded, request.device)?;
        outcome.measures.load_seconds = Some((loaded_at - load_from).as_secs_f64());
        let forward_from = conversation.say("forward")?;
        let (done_at, _) = conversation.hear(Event::Done)?;
        outcome.measures.first_forward_seconds = Some((done_at - forward_from).as_secs_f64());
        match check_logits(logits, request) {
            Ok(error) => {
                outcome.measures.logits_error = Some(error);
                outcome.verified = true;
                outcome.verified_by = Some(VerifiedBy {
                    parameters: None,
                    logits: Some(match request.is_reference_given {
                        true => Logits::Given,
                        false => Logits::OwnForward,
                    }),
                });
            }
            Err(reason) => {
                outcome.status = Status::Failed;
                outcome.reason = Some(reason);
            }
        }
        Ok(Answer {
            outcome,
            framework: ready.framework,
        })
    }
}

/// What a command says that its device held at most; nothing can be in use on a device that has no memory of its own.
fn told(loaded: &Message, device: DeviceSpec) -> Result<Option<u64>, Ended> {
    const MOST_BYTES: u64 = 1 << 50;
    match loaded.device_in_use_peak_bytes {
        Some(bytes) if device.backend.memory_model() == MemoryModel::Unified => {
            let what = format!(
                "the command said that {device} held {bytes} bytes: its memory is the host's"
            );
            Err(Ended::Misunderstood(what))
        }
        Some(bytes) if bytes > MOST_BYTES => {
            let what =
                format!("the command said that {device} held {bytes} bytes: no device has them");
            Err(Ended::Misunderstood(what))
        }
        told => Ok(told),
    }
}

/// Its logits against the reference: the parameters themselves cannot be read from outside.
fn check_logits(logits: &Path, request: &Request<'_>) -> Result<f64, String> {
    let count = (REFERENCE_TOKENS.len() * request.config.vocabulary) as u64;
    let bytes = checkpoint::read_whole(logits, 4 * count).map_err(|error| error.to_string())?;
    let (numbers, _) = bytes.as_chunks::<4>();
    let logits: Vec<f32> = numbers
        .iter()
        .map(|&number| f32::from_le_bytes(number))
        .collect();
    let reference = lab::read_logits(request.reference, request.config.vocabulary)
        .map_err(|error| error.to_string())?;
    let error = lab::logits_error(&logits, &reference).map_err(|error| error.to_string())?;
    let tolerance = lab::logits_tolerance(Kept::Stored, request.dtype, false);
    lab::check_logits(error, tolerance).map_err(|error| error.to_string())?;
    Ok(error)
}

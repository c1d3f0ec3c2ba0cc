//! What a worker reports of its run.

use std::fmt;

use meter::Sample;
use serde::{Deserialize, Serialize};

use crate::Measures;
use crate::columns::{Cell, read_word};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Loaded and verified.
    Ok,
    /// An error, a crash, or a model that is not the checkpoint's.
    Failed,
    /// Host or device memory ran out.
    Oom,
    /// It took longer than the manifest allows.
    Timeout,
    /// It was not started, or could not be set up as asked.
    Skipped,
}

impl Status {
    /// Every status.
    pub const ALL: [Status; 5] = [
        Status::Ok,
        Status::Failed,
        Status::Oom,
        Status::Timeout,
        Status::Skipped,
    ];
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Ok => "ok",
            Status::Failed => "failed",
            Status::Oom => "oom",
            Status::Timeout => "timeout",
            Status::Skipped => "skipped",
        })
    }
}

impl Cell for Status {
    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Result<Self, String> {
        read_word(&Status::ALL, text)
    }
}

/// By what a loaded model was found right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedBy {
    /// What the parameters were compared with; `None` where they could not be read.
    pub parameters: Option<Compared>,
    /// What the logits were compared with; `None` where forward did not run.
    pub logits: Option<Logits>,
}

/// What parameters are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compared {
    /// The digests of the checkpoint's tensors.
    Digests,
    /// The checkpoint's tensors, rounded or quantised as the technique promises.
    Rounded,
    /// The distribution that they are drawn from.
    Distribution,
}

/// What logits are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Logits {
    /// Those of this program's own forward, of its own reading of the checkpoint: a misreading is in both.
    OwnForward,
    /// Those that a person gave, computed by another program.
    Given,
    /// That they are finite numbers.
    Finite,
}

impl fmt::Display for VerifiedBy {
    /// `digests and own forward`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters = self.parameters.map(|compared| match compared {
            Compared::Digests => "digests",
            Compared::Rounded => "rounded weights",
            Compared::Distribution => "the weights' distribution",
        });
        let logits = self.logits.map(|logits| match logits {
            Logits::OwnForward => "own forward",
            Logits::Given => "given logits",
            Logits::Finite => "finite logits",
        });
        let parts: Vec<&str> = parameters.into_iter().chain(logits).collect();
        f.write_str(&parts.join(" and "))
    }
}

/// The result of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Why it ended so, where it did not end well.
    pub reason: Option<String>,
    /// Whether every parameter and, where forward ran, the logits were found right.
    pub verified: bool,
    /// By what it was found right.
    pub verified_by: Option<VerifiedBy>,
    /// What was measured.
    pub measures: Measures,
    /// Memory over time.
    pub timeline: Vec<Sample>,
}

impl Outcome {
    /// A run that ended without measurements.
    pub fn ended(status: Status, reason: impl Into<String>) -> Outcome {
        Outcome {
            status,
            reason: Some(reason.into()),
            verified: false,
            verified_by: None,
            measures: Measures::default(),
            timeline: Vec::new(),
        }
    }
}

//! What tells runs apart.

use lab::Tuned;

use crate::record::Record;
use crate::units;

/// Everything that decides what a run measures, but the code and the machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Configuration {
    pub experiment: String,
    pub model: String,
    pub device: String,
    pub dtype: String,
    pub format: Option<String>,
    pub cache: String,
    pub host_cap_bytes: Option<u64>,
    /// Which weights were loaded.
    pub checkpoint: Option<String>,
    /// What the technique was tuned with.
    pub tuned: Tuned,
}

/// The code that made a run: its commit, and whether the sources differed from it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Code {
    pub commit: Option<String>,
    pub dirty: Option<bool>,
}

/// A run that needs to be made once only: `--resume` leaves out what is recorded under the same key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunKey {
    configuration: Configuration,
    repeat: u32,
    code: Code,
    machine: String,
}

impl Record {
    /// What was run.
    pub fn configuration(&self) -> Configuration {
        Configuration {
            experiment: self.experiment.clone(),
            model: self.model.clone(),
            device: self.device.clone(),
            dtype: self.dtype.clone(),
            format: self.format.clone(),
            cache: self.cache.clone(),
            host_cap_bytes: self.host_cap_bytes,
            checkpoint: self.checkpoint.clone(),
            tuned: self.tuned(),
        }
    }

    /// The code that made it.
    pub fn code(&self) -> Code {
        Code {
            commit: self.commit.clone(),
            dirty: self.dirty,
        }
    }

    /// What makes it the same run as another.
    pub fn key(&self) -> RunKey {
        RunKey {
            configuration: self.configuration(),
            repeat: self.repeat,
            code: self.code(),
            machine: self.machine.clone(),
        }
    }
}

impl Configuration {
    /// `naive medium flex f32 warm`, with the cap where there is one, on a device of this name.
    pub fn label(&self, device: &str) -> String {
        let Configuration {
            experiment,
            model,
            dtype,
            cache,
            ..
        } = self;
        let cap = self
            .host_cap_bytes
            .map(|cap| format!(" cap {}", units::bytes(cap)));
        format!(
            "{experiment} {model} {device} {dtype} {cache}{}",
            cap.unwrap_or_default()
        )
    }
}

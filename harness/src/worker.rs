//! The hidden `worker` command: one run, described by one JSON value, so that a person can repeat it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use checkpoint::Dtype;
use clap::Args;
use gpt2::Size;
use gpt2::layout::Reading;
use lab::{DeviceSpec, Outcome, RunSpec, Status, Tuning};
use meter::{CacheState, Cgroup, HostLimits};
use serde::{Deserialize, Serialize};

use crate::checkpoints::Sidecar;
use crate::registry;
use crate::subprocess::end_with_parent;

/// One run, as the harness starts it.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// The run as JSON
    #[arg(value_name = "JSON")]
    pub specification: String,
}

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Specification {
    pub experiment: String,
    #[serde(with = "words")]
    pub size: Size,
    #[serde(with = "words")]
    pub device: DeviceSpec,
    pub dtype: Dtype,
    pub tuning: Tuning,
    pub cache: CacheState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// How it is read.
    #[serde(default)]
    pub reading: Reading,
    /// Digests of its tensors, as `harness prepare` writes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digests: Option<PathBuf>,
    /// Logits to compare with: a file with a tensor `logits` [1, 3, vocabulary].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<PathBuf>,
    /// Whether another program has computed them.
    #[serde(default)]
    pub is_reference_given: bool,
    /// Where to write the logits of the first forward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_logits: Option<PathBuf>,
    /// Runs forward even where its kernels are compiled in software.
    #[serde(default)]
    pub forward_in_software: bool,
    /// Host memory that the run may use above its baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_cap_bytes: Option<u64>,
    /// Folder of a cgroup to run in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// File that always tells what the run is doing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_words: Option<PathBuf>,
    /// Measures the load's time and nothing else.
    #[serde(default)]
    pub only_time: bool,
}

/// Values that are written as people write them.
mod words {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Runs and prints the outcome as one line of JSON. A run that fails is an outcome too.
pub fn work(args: &WorkerArgs) -> anyhow::Result<()> {
    // A killed harness must not leave a run behind that spoils the next one's numbers.
    end_with_parent();
    let specification = serde_json::from_str(&args.specification);
    let specification = specification.context("the run's specification")?;
    println!("{}", serde_json::to_string(&outcome(&specification))?);
    Ok(())
}

fn outcome(args: &Specification) -> Outcome {
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
        tuning: args.tuning,
        dtype: args.dtype,
        device: args.device,
        cache: args.cache,
        checkpoint: args.checkpoint.clone().unwrap_or_default(),
        reading: args.reading.clone(),
        digests,
        reference_logits: args.reference.clone(),
        is_reference_given: args.is_reference_given,
        save_logits: args.save_logits.clone(),
        forward_in_software: args.forward_in_software,
        host: HostLimits {
            cgroup: args.cgroup.as_deref().map(Cgroup::in_folder),
            cap_bytes: args.host_cap_bytes,
        },
        last_words: args.last_words.clone(),
        only_time: args.only_time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_one_value_and_an_unknown_key_is_refused() {
        let specification = Specification {
            experiment: "naive".to_owned(),
            size: "v257-c64-e48-l2-h4".parse().unwrap(),
            device: "vulkan:1".parse().unwrap(),
            dtype: Dtype::F16,
            tuning: Tuning::default(),
            cache: CacheState::Cold,
            checkpoint: Some("a b.safetensors".into()),
            reading: Reading::default(),
            digests: None,
            reference: None,
            is_reference_given: false,
            save_logits: None,
            forward_in_software: true,
            host_cap_bytes: Some(7),
            cgroup: None,
            last_words: None,
            only_time: false,
        };
        let text = serde_json::to_string(&specification).unwrap();
        assert!(text.contains(r#""device":"vulkan:1""#), "{text}");
        let read: Specification = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{read:?}"), format!("{specification:?}"));
        let more = text.replacen('{', r#"{"sort":1,"#, 1);
        assert!(serde_json::from_str::<Specification>(&more).is_err());
    }
}

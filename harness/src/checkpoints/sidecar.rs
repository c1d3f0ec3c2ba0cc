//! What lies beside every checkpoint: where its weights come from, and the digests that runs are verified with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Context;
use checkpoint::{Digest, Dtype, Hasher};
use gpt2::Size;
use serde::{Deserialize, Serialize};

use crate::atomic;

/// Raised when prepared weights or the sidecar change.
const SCHEMA: u32 = 1;

/// Beside every prepared or imported checkpoint: what it is, and the digests that runs are verified with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sidecar {
    schema: u32,
    /// Where the weights come from; a checkpoint whose origin changed is made anew.
    pub origin: Origin,
    pub size: String,
    pub dtype: Dtype,
    pub digests: BTreeMap<String, Digest>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    Synthetic {
        seed: u64,
    },
    File {
        path: PathBuf,
        bytes: u64,
        modified_unix_seconds: u64,
        /// Digest of the layout file that it was read with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layout: Option<Digest>,
    },
}

impl Origin {
    /// The file at `path`, as it is now.
    pub fn of_file(path: &Path, layout: Option<&Path>) -> anyhow::Result<Origin> {
        let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
        let modified = metadata
            .modified()?
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Origin::File {
            path: path.to_owned(),
            bytes: metadata.len(),
            modified_unix_seconds: modified.as_secs(),
            layout: layout
                .map(|layout| anyhow::Ok(Digest::of(&std::fs::read(layout)?)))
                .transpose()?,
        })
    }
}

impl Sidecar {
    /// Of weights of this origin.
    pub fn new(
        origin: Origin,
        size: Size,
        dtype: Dtype,
        digests: BTreeMap<String, Digest>,
    ) -> Sidecar {
        Sidecar {
            schema: SCHEMA,
            origin,
            size: size.to_string(),
            dtype,
            digests,
        }
    }

    /// Whether it is of weights of this origin and size, made by this version.
    pub fn is_of(&self, origin: &Origin, size: Size) -> bool {
        self.schema == SCHEMA && self.origin == *origin && self.size == size.to_string()
    }

    /// Reads it.
    pub fn load(path: &Path) -> anyhow::Result<Sidecar> {
        let text = std::fs::read(path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{}: is no list of digests", path.display()))
    }

    /// Tells these weights from others: a digest of all digests.
    pub fn identity(&self) -> String {
        let mut hasher = Hasher::default();
        for (name, digest) in &self.digests {
            hasher.update(name.as_bytes());
            hasher.update(digest.to_string().as_bytes());
        }
        format!("blake3-{:.16}", hasher.finish().to_string())
    }

    /// Writes it.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        atomic::write(path, serde_json::to_vec_pretty(self)?)
    }
}

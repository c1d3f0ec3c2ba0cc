//! What lies beside every checkpoint: where its weights come from, and the digests that runs are verified with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Context;
use checkpoint::{Checkpoint, Digest, Dtype, Hasher, read_whole};
use gpt2::Size;
use gpt2::layout::{MAX_LAYOUT_BYTES, Reading};
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::json;

/// What it is called.
pub const FILE: &str = "digests.json";
/// A line for each tensor: anything larger is none.
const MAX_BYTES: u64 = 64 << 20;
/// Raised when prepared weights or the sidecar change.
const SCHEMA: u32 = 2;

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
        /// Every file that holds a tensor.
        files: Vec<Stamp>,
        /// The dtype that is loaded.
        dtype: Dtype,
        /// Digest of the layout file that it was read with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layout: Option<Digest>,
        /// The path of keys to its state dict.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
}

/// What tells a file from another that took its place, even one of its length and time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamp {
    file: PathBuf,
    bytes: u64,
    modified_unix_nanoseconds: u64,
    /// When its contents, name or owner were changed last, which nobody can set; and its number on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed: Option<(i64, i64, u64)>,
}

impl Stamp {
    fn of(file: &Path) -> anyhow::Result<Stamp> {
        let metadata = std::fs::metadata(file).with_context(|| file.display().to_string())?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH);
        #[cfg(unix)]
        let changed = {
            use std::os::unix::fs::MetadataExt;
            Some((metadata.ctime(), metadata.ctime_nsec(), metadata.ino()))
        };
        #[cfg(not(unix))]
        let changed = None;
        Ok(Stamp {
            file: file.to_owned(),
            bytes: metadata.len(),
            modified_unix_nanoseconds: modified.unwrap_or_default().as_nanos() as u64,
            changed,
        })
    }
}

/// The digest of a layout file that a checkpoint is read with, where there is one.
pub fn digest_of_layout(reading: &Reading) -> anyhow::Result<Option<Digest>> {
    let layout = reading.layout.as_ref();
    let digest =
        layout.map(|layout| anyhow::Ok(Digest::of(&read_whole(layout, MAX_LAYOUT_BYTES)?)));
    digest.transpose()
}

impl Origin {
    /// The files of a checkpoint, as they are now.
    pub fn of(checkpoint: &Checkpoint, reading: &Reading, dtype: Dtype) -> anyhow::Result<Origin> {
        let files = checkpoint.tensors().iter().map(|tensor| &*tensor.file);
        let files: BTreeSet<&Path> = files.collect();
        let files = files.into_iter().map(Stamp::of);
        Ok(Origin::File {
            path: std::path::absolute(checkpoint.path())?,
            files: files.collect::<anyhow::Result<_>>()?,
            dtype,
            key: reading.key.clone(),
            layout: digest_of_layout(reading)?,
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
        json::read(path, MAX_BYTES)
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

//! Several safetensors files with an index, as the Hugging Face hub keeps large models: a folder with
//!
//! ```text
//!  model.safetensors.index.json        {"metadata": {"total_size": …}, "weight_map": {tensor: file, …}}
//!  model-00001-of-00004.safetensors
//!  …
//! ```

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Found, safetensors};
use crate::write::{Source, Written};
use crate::{Error, TensorMeta};

/// The index's name in its folder.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// How the names of other models' indices end.
pub(super) const INDEX_SUFFIX: &str = ".index.json";
/// An index of more bytes is none.
const MAX_INDEX_BYTES: u64 = 64 << 20;
/// A file of a prepared checkpoint is as large as the hub's were for long, or a quarter of a small model.
const MAX_FILE_BYTES: u64 = 5_000_000_000;

#[derive(Serialize, Deserialize)]
struct Index {
    #[serde(default)]
    metadata: Metadata,
    weight_map: BTreeMap<String, String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Metadata {
    #[serde(default)]
    total_size: u64,
}

/// The index of a folder or of the path of an index itself.
fn index_path(path: &Path) -> PathBuf {
    match path.is_dir() {
        true => path.join(INDEX),
        false => path.to_owned(),
    }
}

pub(super) fn read_index(path: &Path) -> Result<Found, Error> {
    let path = index_path(path);
    let length = std::fs::metadata(&path)
        .map_err(Error::io(&path, "open"))?
        .len();
    if length > MAX_INDEX_BYTES {
        return Err(Error::invalid(
            &path,
            "is larger than any index of a checkpoint",
        ));
    }
    let text = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| {
        Error::invalid(
            &path,
            format!("is no index of a sharded checkpoint: {error}"),
        )
    })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut files: Vec<&String> = index.weight_map.values().collect();
    files.sort();
    files.dedup();
    let mut found = Found {
        tensors: Vec::with_capacity(index.weight_map.len()),
        ignored: Vec::new(),
    };
    for file in files {
        let is_name = Path::new(file)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !is_name || Path::new(file).components().count() != 1 {
            let reason = format!("names `{file}`, which is no file of its own folder");
            return Err(Error::invalid(&path, reason));
        }
        let mut one = safetensors::read_index(&folder.join(file))?;
        // What the index does not name, or names elsewhere, is no part of the checkpoint.
        one.tensors
            .retain(|tensor| index.weight_map.get(&tensor.name) == Some(file));
        found.tensors.append(&mut one.tensors);
        found.ignored.append(&mut one.ignored);
    }
    let missing = index.weight_map.keys().find(|name| {
        let is_tensor = found.tensors.iter().any(|tensor| tensor.name == **name);
        !is_tensor && !found.ignored.contains(name)
    });
    match missing {
        None => Ok(found),
        Some(name) => {
            let file = &index.weight_map[name];
            let reason = format!("says that `{file}` holds tensor `{name}`, and it does not");
            Err(Error::invalid(&path, reason))
        }
    }
}

pub(super) fn write(folder: &Path, source: Source<'_>) -> Result<Written, Error> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
    let total_size: u64 = source.tensors().iter().map(TensorMeta::bytes).sum();
    let parts = parts(
        source.tensors(),
        MAX_FILE_BYTES.min((total_size / 4).max(1)),
    );
    let mut index = Index {
        metadata: Metadata { total_size },
        weight_map: BTreeMap::new(),
    };
    let mut written = Written::default();
    source.in_parts(&parts, |number, part| {
        let file = format!("model-{:05}-of-{:05}.safetensors", number + 1, parts.len());
        for tensor in part.tensors() {
            index.weight_map.insert(tensor.name.clone(), file.clone());
        }
        written.append(safetensors::write(&folder.join(&file), part)?);
        Ok(())
    })?;
    let path = folder.join(INDEX);
    let text = serde_json::to_vec_pretty(&index).expect("names are valid JSON");
    std::fs::write(&path, text).map_err(Error::io(&path, "write"))?;
    Ok(written)
}

/// Consecutive tensors in as few files as a limit allows; a tensor over it has one to itself.
fn parts(tensors: &[TensorMeta], max_bytes: u64) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (at, tensor) in tensors.iter().enumerate() {
        match parts.last_mut() {
            Some(last) if bytes + tensor.bytes() <= max_bytes => last.end = at + 1,
            _ => {
                parts.push(at..at + 1);
                bytes = 0;
            }
        }
        bytes += tensor.bytes();
    }
    parts
}

//! Several files with an index, as the Hugging Face hub keeps large models: a folder with
//!
//! ```text
//!  model.safetensors.index.json        {"metadata": {"total_size": …}, "weight_map": {tensor: file, …}}
//!  model-00001-of-00004.safetensors
//!  …
//! ```
//!
//! or, of PyTorch's own files, `pytorch_model.bin.index.json`, `pytorch_model-00001-of-00004.bin` and so on.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Format, Found, Other, Unreadable, header, safetensors};
use crate::write::{Source, Written};
use crate::{Error, TensorMeta, TensorRange, file, pth};

/// The index's name in its folder.
const INDEX: &str = "model.safetensors.index.json";
/// That of PyTorch's files.
const PYTORCH_INDEX: &str = "pytorch_model.bin.index.json";
/// How the names of other models' indices end.
pub(super) const INDEX_SUFFIX: &str = ".index.json";
/// An index of more bytes is none.
const MAX_INDEX_BYTES: u64 = 64 << 20;
/// A file of a prepared checkpoint is as large as the hub's were for long, or a quarter of a small model.
const MAX_FILE_BYTES: u64 = 5_000_000_000;

/// What is read of an index. The rest, such as a size that is no number, cannot be wrong: nobody asks for it.
#[derive(Deserialize)]
struct Index {
    #[serde(deserialize_with = "header::unique")]
    weight_map: BTreeMap<String, String>,
}

/// What is written of one.
#[derive(Serialize)]
struct NewIndex {
    metadata: Metadata,
    weight_map: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Metadata {
    total_size: u64,
}

impl Index {
    fn read(path: &Path) -> Result<Index, Error> {
        let (mut file, length) = file::open(path)?;
        if length > MAX_INDEX_BYTES {
            return Err(Error::invalid(
                path,
                "is larger than any index of a checkpoint",
            ));
        }
        let text = header::read(path, &mut file, length)?;
        serde_json::from_slice(&text).map_err(|error| {
            Error::invalid(
                path,
                format!("is no index of a sharded checkpoint: {error}"),
            )
        })
    }

    /// The names of the files, each once.
    fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(|file| &**file).collect()
    }
}

/// The index of a folder, which may have none, or the path of an index itself.
pub(super) fn index_path(path: &Path) -> PathBuf {
    let pytorch = path.join(PYTORCH_INDEX);
    match path.is_dir() {
        true if pytorch.exists() && !path.join(INDEX).exists() => pytorch,
        true => path.join(INDEX),
        false => path.to_owned(),
    }
}

pub(super) fn read_index(path: &Path) -> Result<Found, Error> {
    let path = index_path(path);
    let index = Index::read(&path)?;
    let invalid = |reason: String| Error::invalid(&path, reason);
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut found = Found::default();
    let mut unreadable_in: HashMap<String, PathBuf> = HashMap::new();
    for name in index.files() {
        if !header::is_file_name(name) {
            let reason = format!("names `{name}`, which is no file of its own folder");
            return Err(invalid(reason));
        }
        let file = folder.join(name);
        if !file.exists() {
            let reason = format!("names `{name}`, which is not there: get it, too");
            return Err(invalid(reason));
        }
        header::check_inside(folder, &file)?;
        let format = Format::detect(&file)?;
        if !matches!(format, Format::Safetensors | Format::Pth) {
            return Err(invalid(format!(
                "names `{name}`, which is neither a safetensors file nor one of PyTorch's"
            )));
        }
        let one = format.read_index(&file, None)?;
        // transformers loads whole files: what the index names elsewhere or nowhere is the model's all the same.
        let others = one.others.iter();
        unreadable_in.extend(others.map(|other| (other.name.clone(), file.clone())));
        found.append(one);
        let entries = found.tensors.len() + found.others.len();
        if entries > header::MOST_ENTRIES {
            let most = header::MOST_ENTRIES;
            let reason =
                format!("names files with more than {most} entries: no checkpoint has so many");
            return Err(invalid(reason));
        }
    }
    found.others = first_of_each(found.others);
    found.tensors = one_of_each(&path, found.tensors, &unreadable_in)?;
    let names = found.tensors.iter().map(|tensor| &*tensor.name);
    let others = found.others.iter().map(|other| &*other.name);
    let there: HashSet<&str> = names.chain(others).collect();
    let missing = index.weight_map.iter();
    let missing: Vec<_> = missing
        .filter(|(name, _)| !there.contains(&***name))
        .collect();
    // Nobody may need it: a head that is the table of the tokens is listed by some and kept by none.
    let index = path.file_name().unwrap_or_default().to_string_lossy();
    for (name, file) in missing {
        found.add(
            name,
            Err(Unreadable::Missing {
                index: index.clone().into_owned(),
                file: file.clone(),
            }),
        );
    }
    Ok(found)
}

/// The tensors, each once. Which of two copies that differ is the model's nobody can tell: an index says the one, and
/// transformers loads the last.
fn one_of_each(
    index: &Path,
    tensors: Vec<TensorRange>,
    unreadable_in: &HashMap<String, PathBuf>,
) -> Result<Vec<TensorRange>, Error> {
    let differ = |name: &str, one: &Path, other: &Path| {
        let [one, other] =
            [one, other].map(|file| file.file_name().unwrap_or_default().to_string_lossy());
        let reason = format!(
            "tensor `{name}` stands in `{one}` and in `{other}`, and they differ: save the model again, or take the wrong one out"
        );
        Err(Error::invalid(index, reason))
    };
    let mut kept: Vec<TensorRange> = Vec::with_capacity(tensors.len());
    let mut places: HashMap<String, usize> = HashMap::with_capacity(tensors.len());
    for tensor in tensors {
        if let Some(file) = unreadable_in.get(&tensor.name) {
            return differ(&tensor.name, file, &tensor.file);
        }
        match places.entry(tensor.name.clone()) {
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(tensor);
            }
            Entry::Occupied(place) => {
                let first = &kept[*place.get()];
                if !first.is_same(&tensor)? {
                    return differ(&tensor.name, &first.file, &tensor.file);
                }
            }
        }
    }
    Ok(kept)
}

/// The entries that are no weights, each once.
fn first_of_each(others: Vec<Other>) -> Vec<Other> {
    let mut kept: Vec<Other> = Vec::with_capacity(others.len());
    let mut places: HashMap<String, usize> = HashMap::with_capacity(others.len());
    for other in others {
        match places.entry(other.name.clone()) {
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(other);
            }
            Entry::Occupied(place) => kept[*place.get()].meet(&other),
        }
    }
    kept
}

/// The index beside a file that names it as one of several; with how many there are.
pub(super) fn index_of(file: &Path) -> Option<(PathBuf, usize)> {
    /// Folders of more indices are none of a checkpoint.
    const MAX_INDICES: usize = 8;
    let folder = match file.parent()? {
        parent if parent.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    let name = file.file_name()?.to_str()?;
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let mut indices: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| format_of(path).is_some())
        .take(MAX_INDICES)
        .collect();
    indices.sort();
    indices.into_iter().find_map(|path| {
        // One that cannot be read names nothing.
        let index = Index::read(&path).ok()?;
        let files = index.files();
        (files.len() > 1 && files.contains(name)).then_some((path, files.len()))
    })
}

/// What the index of this name is of; `None` if it is no index.
pub(super) fn format_of(index: &Path) -> Option<Format> {
    let name = index.file_name()?.to_string_lossy();
    match name.strip_suffix(INDEX_SUFFIX)? {
        files if files.ends_with(".bin") => Some(Format::ShardedPth),
        _ => Some(Format::Sharded),
    }
}

pub(super) fn write(folder: &Path, format: Format, source: Source<'_>) -> Result<Written, Error> {
    let is_pytorchs = format == Format::ShardedPth;
    std::fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
    let total_size: u64 = source.tensors().iter().map(TensorMeta::bytes).sum();
    let parts = parts(
        source.tensors(),
        MAX_FILE_BYTES.min((total_size / 4).max(1)),
    );
    let mut index = NewIndex {
        metadata: Metadata { total_size },
        weight_map: BTreeMap::new(),
    };
    let mut written = Written::default();
    source.in_parts(&parts, |number, part| {
        let (number, count) = (number + 1, parts.len());
        let file = match is_pytorchs {
            true => format!("pytorch_model-{number:05}-of-{count:05}.bin"),
            false => format!("model-{number:05}-of-{count:05}.safetensors"),
        };
        for tensor in part.tensors() {
            index.weight_map.insert(tensor.name.clone(), file.clone());
        }
        let path = folder.join(&file);
        written.append(match is_pytorchs {
            true => pth::write(&path, part)?,
            false => safetensors::write(&path, part)?,
        });
        Ok(())
    })?;
    let path = folder.join(match is_pytorchs {
        true => PYTORCH_INDEX,
        false => INDEX,
    });
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

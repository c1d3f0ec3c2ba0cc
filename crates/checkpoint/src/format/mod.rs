//! The formats that are read and written. To add one: a file here, an arm in each match below.

mod burnpack;
mod folder;
mod header;
mod safetensors;
mod sharded;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::write::{Source, Written};
use crate::{Error, TensorMeta, TensorRange, pth};

/// How a checkpoint is laid out on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One safetensors file.
    Safetensors,
    /// What `torch.save(model.state_dict(), path)` writes: a stored zip of a pickle and raw storages.
    Pth,
    /// A folder with a safetensors file for each tensor, named after it.
    PerTensor,
    /// A folder with several safetensors files and their index, as on the Hugging Face hub.
    Sharded,
    /// The same with PyTorch's files (`.bin`).
    ShardedPth,
    /// One safetensors file with every matrix as 8-bit integers, `NAME`, and their scales, `NAME.scales`.
    Int8,
    /// Burn's own format, of burn-store, with the names that its module paths have.
    Burnpack,
    /// What Burn's named MessagePack recorder writes and reads.
    NamedMpk,
}

/// What a format's reader finds.
#[derive(Default)]
pub(crate) struct Found {
    pub tensors: Vec<TensorRange>,
    pub others: Vec<Other>,
    /// What a file says of itself in words, by names.
    pub metadata: BTreeMap<String, String>,
}

impl Found {
    /// A tensor of these elements, or why it is none that can be loaded.
    pub fn add(&mut self, name: &str, tensor: Result<TensorRange, String>) {
        match tensor {
            Ok(tensor) => self.tensors.push(tensor),
            Err(reason) => self.others.push(Other {
                name: name.to_owned(),
                reason,
            }),
        }
    }

    pub fn append(&mut self, mut more: Found) {
        self.tensors.append(&mut more.tensors);
        self.others.append(&mut more.others);
        self.metadata.append(&mut more.metadata);
    }
}

/// An entry of a checkpoint that cannot be loaded: a mask of booleans, say, or a number.
#[derive(Debug, Clone, PartialEq)]
pub struct Other {
    /// Its name.
    pub name: String,
    /// What it is instead, as the end of a sentence.
    pub reason: String,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 8] = [
        Format::Safetensors,
        Format::Pth,
        Format::PerTensor,
        Format::Sharded,
        Format::ShardedPth,
        Format::Int8,
        Format::Burnpack,
        Format::NamedMpk,
    ];

    /// Those that others are made of: see [`Format::is_plain`].
    pub fn plain() -> impl Iterator<Item = Format> {
        Format::ALL.into_iter().filter(|format| format.is_plain())
    }

    /// The name on the command line, in manifests and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::Pth => "pth",
            Format::PerTensor => "per-tensor",
            Format::Sharded => "sharded",
            Format::ShardedPth => "sharded-pth",
            Format::Int8 => "int8",
            Format::Burnpack => "burnpack",
            Format::NamedMpk => "named-mpk",
        }
    }

    /// Whether a checkpoint of this format holds the tensors of the model as they are, under the book's names. The others are
    /// made of one that does.
    pub const fn is_plain(self) -> bool {
        matches!(
            self,
            Format::Safetensors
                | Format::Pth
                | Format::PerTensor
                | Format::Sharded
                | Format::ShardedPth
        )
    }

    /// The name that a prepared checkpoint of this format has within its folder.
    pub const fn file_name(self) -> &'static str {
        match self {
            Format::Safetensors => "model.safetensors",
            Format::Pth => "model.pth",
            Format::PerTensor => "per-tensor",
            Format::Sharded => "sharded",
            Format::ShardedPth => "sharded-pth",
            Format::Int8 => "model.int8.safetensors",
            Format::Burnpack => "model.bpk",
            Format::NamedMpk => "model.mpk",
        }
    }

    /// Whether a folder holds several files and their index.
    pub(crate) fn is_sharded(folder: &Path) -> bool {
        sharded::index_path(folder).is_file()
    }

    /// Tells the format by the first bytes.
    pub(crate) fn detect(path: &Path) -> Result<Format, Error> {
        let metadata = std::fs::metadata(path).map_err(Error::io(path, "open"))?;
        if metadata.is_dir() && !Format::is_sharded(path) {
            return Ok(Format::PerTensor);
        }
        if let Some(format) = sharded::format_of(&sharded::index_path(path)) {
            return Ok(format);
        }
        let mut start = [0; 9];
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let length = file
            .take(start.len() as u64)
            .read(&mut start)
            .map_err(Error::io(path, "read"))?;
        match &start[..length] {
            [b'P', b'K', 3, 4, ..] => Ok(Format::Pth),
            [b'N', b'R', b'U', b'B', ..] => Ok(Format::Burnpack),
            [_, _, _, _, _, _, _, _, b'{'] => Ok(Format::Safetensors),
            // A pickle protocol mark, and the magic number of torch.save before 1.6 behind it.
            [0x80, 2, 0x8a, ..] => Err(Error::invalid(
                path,
                "is in the legacy format of torch.save: load it in PyTorch and save it again, with torch.save(state_dict, \
                 path) of 1.6 or newer",
            )),
            _ => Err(Error::invalid(
                path,
                "is no checkpoint that is known here: safetensors, a PyTorch .pth, .pt or .bin, Burn's burnpack, a folder of \
                 per-tensor safetensors files, or the index of a sharded checkpoint",
            )),
        }
    }

    pub(crate) fn read_index(self, path: &Path) -> Result<Found, Error> {
        match self {
            Format::Safetensors => safetensors::read_index(path),
            Format::Pth => pth::read_index(path),
            Format::PerTensor => folder::read_index(path),
            Format::Sharded | Format::ShardedPth => sharded::read_index(path),
            Format::Int8 => safetensors::read_index(path),
            Format::Burnpack => burnpack::read_index(path),
            Format::NamedMpk => Err(self.is_burns(path)),
        }
    }

    pub(crate) fn write_to(self, path: &Path, source: Source<'_>) -> Result<Written, Error> {
        match self {
            Format::Safetensors => safetensors::write(path, source),
            Format::Pth => pth::write(path, source),
            Format::PerTensor => folder::write(path, source),
            Format::Sharded | Format::ShardedPth => sharded::write(path, self, source),
            Format::Int8 => safetensors::write(path, source),
            Format::Burnpack => burnpack::write(path, source),
            Format::NamedMpk => Err(self.is_burns(path)),
        }
    }

    fn is_burns(self, path: &Path) -> Error {
        let reason =
            format!("is in Burn's format {self}, which is written and read by Burn itself");
        Error::invalid(path, reason)
    }

    /// Bytes on disk of a checkpoint with these tensors, within a few percent: the weights, and what
    /// the format puts around each.
    pub fn disk_bytes(self, tensors: &[TensorMeta]) -> u64 {
        let around = match self {
            Format::PerTensor => 8192,
            _ => 512,
        };
        let weights = |tensor: &TensorMeta| match (self, &tensor.shape[..]) {
            // An integer for four bytes, and a scale for 32 elements.
            (Format::Int8, [_, _]) => tensor.elements() + tensor.elements() / 8,
            _ => tensor.bytes(),
        };
        tensors.iter().map(|tensor| weights(tensor) + around).sum()
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Format::ALL.into_iter().find(|format| format.name() == text);
        known.ok_or_else(|| {
            let names = Format::ALL.map(Format::name).join(", ");
            format!("unknown format `{text}`: use one of {names}")
        })
    }
}

//! The formats that are read and written. To add one: a file here, an arm in each match below.

#[cfg(feature = "burnpack")]
mod burnpack;
#[cfg(not(feature = "burnpack"))]
#[path = "burnpack_left_out.rs"]
mod burnpack;
mod folder;
mod found;
mod header;
mod safetensors;
mod shard;
mod sharded;

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) use found::Found;
pub use found::{Other, Unreadable};
pub use shard::Shard;

use crate::foreign;
use crate::write::{Source, Written};
use crate::{Error, TensorMeta, file, pth};

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
        sharded::index_path(folder).exists()
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
        let (file, _) = file::open(path)?;
        let mut start = Vec::new();
        file.take(foreign::START_BYTES as u64)
            .read_to_end(&mut start)
            .map_err(Error::io(path, "read"))?;
        match &start[..] {
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Ok(Format::Pth),
            [b'N', b'R', b'U', b'B', ..] => Ok(Format::Burnpack),
            [_, _, _, _, _, _, _, high, b'{', ..] if is_length(*high) => Ok(Format::Safetensors),
            _ => Err(Error::Foreign {
                path: path.to_owned(),
                kind: foreign::of_file(path, &start),
            }),
        }
    }

    /// What a checkpoint holds: at a path of keys in it, where one is given, which only files of PyTorch's have.
    pub(crate) fn read_index(self, path: &Path, key: Option<&str>) -> Result<Found, Error> {
        if let (Some(key), false) = (key, self == Format::Pth) {
            let reason = format!(
                "is {self}, in which there are no keys to choose from: `{key}` is for a file of PyTorch's"
            );
            return Err(Error::invalid(path, reason));
        }
        match self {
            Format::Safetensors => safetensors::read_index(path),
            Format::Pth => pth::read_index(path, key),
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

    /// What a format says that this program was built without.
    #[cfg(not(all(feature = "pth", feature = "burnpack")))]
    pub(crate) fn left_out(self, path: &Path) -> Error {
        let reason = format!(
            "is in the format {self}, which this program was built without: switch on its feature"
        );
        Error::invalid(path, reason)
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

/// Whether this is the highest byte of a header's length, and not a character: a text in JSON may have a brace there, too.
fn is_length(byte: u8) -> bool {
    !(byte.is_ascii_graphic() || byte.is_ascii_whitespace())
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

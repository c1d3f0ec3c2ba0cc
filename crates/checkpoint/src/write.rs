//! Writing checkpoints: streaming, atomically, with a digest per tensor.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use crate::{Digest, Dtype, Error, Format, Hasher};

/// How the names of folders begin that [`write()`] works in: one that was killed leaves it behind.
pub const PARTIAL_PREFIX: &str = ".partial-";

/// A tensor that is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorMeta {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
}

impl TensorMeta {
    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.elements() * self.dtype.bytes()
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }
}

/// Hands out a tensor's bytes, piece by piece, in order: all [`TensorMeta::bytes`] of them.
pub type Fill<'a> =
    dyn FnMut(&TensorMeta, &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> + 'a;

/// What was written: each tensor's name with the digest of its bytes, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    /// Name and digest of each tensor.
    pub digests: Vec<(String, Digest)>,
}

impl Written {
    pub(crate) fn append(&mut self, mut other: Written) {
        self.digests.append(&mut other.digests);
    }
}

/// Writes a checkpoint to `path`: under a temporary name beside it, renamed when it is complete and
/// synced, so that whatever bears the name is whole. Memory is bounded by the pieces that `fill` hands
/// out, whatever the size of the model. A file that is there is replaced, and so is an empty folder.
///
/// # Errors
///
/// If the disk refuses, there is a folder with something in it, `fill` fails, or hands out another number of bytes than the tensor has.
pub fn write(
    path: &Path,
    format: Format,
    tensors: &[TensorMeta],
    fill: &mut Fill<'_>,
) -> Result<Written, Error> {
    write_with_metadata(path, format, tensors, &BTreeMap::new(), fill)
}

/// As [`write()`], with words about the checkpoint, by names, where the format has room for them: in the metadata of safetensors
/// files.
///
/// # Errors
///
/// As [`write()`].
pub fn write_with_metadata(
    path: &Path,
    format: Format,
    tensors: &[TensorMeta],
    metadata: &BTreeMap<String, String>,
    fill: &mut Fill<'_>,
) -> Result<Written, Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
    let partial = tempfile::Builder::new()
        .prefix(PARTIAL_PREFIX)
        .tempdir_in(folder)
        .map_err(Error::io(folder, "create a temporary folder in"))?;
    let unfinished = partial.path().join("checkpoint");
    let written = format.write_to(
        &unfinished,
        Source {
            tensors,
            metadata,
            fill,
        },
    )?;
    if path.is_dir() {
        // An empty one: whatever is in another is not ours to remove.
        std::fs::remove_dir(path).map_err(Error::io(path, "replace"))?;
    }
    std::fs::rename(&unfinished, path).map_err(Error::io(path, "rename to"))?;
    Ok(written)
}

/// The tensors to write, with where their bytes come from.
pub(crate) struct Source<'a> {
    tensors: &'a [TensorMeta],
    metadata: &'a BTreeMap<String, String>,
    fill: &'a mut Fill<'a>,
}

impl Source<'_> {
    pub fn tensors(&self) -> &[TensorMeta] {
        self.tensors
    }

    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.metadata
    }

    /// Writes the bytes of every tensor, one behind the other.
    pub fn write_all(&mut self, path: &Path, to: &mut dyn Write) -> Result<Written, Error> {
        let mut written = Written::default();
        for tensor in self.tensors {
            let digest = self.write_one(path, tensor, to)?;
            written.digests.push((tensor.name.clone(), digest));
        }
        Ok(written)
    }

    /// Writes the bytes of one tensor.
    pub fn write_one(
        &mut self,
        path: &Path,
        tensor: &TensorMeta,
        to: &mut dyn Write,
    ) -> Result<Digest, Error> {
        let mut hasher = Hasher::default();
        let mut bytes = 0;
        (self.fill)(tensor, &mut |piece| {
            hasher.update(piece);
            bytes += piece.len() as u64;
            to.write_all(piece).map_err(Error::io(path, "write"))
        })?;
        if bytes != tensor.bytes() {
            let reason = format!("tensor `{}` came with {bytes} bytes", tensor.name);
            return Err(Error::invalid(path, reason));
        }
        Ok(hasher.finish())
    }

    /// Calls `each` with a source of each of these runs of tensors alone, in order.
    pub fn in_parts(
        self,
        parts: &[Range<usize>],
        mut each: impl FnMut(usize, Source<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Source {
            tensors,
            metadata,
            fill,
        } = self;
        for (number, part) in parts.iter().enumerate() {
            let mut fill =
                |tensor: &TensorMeta, sink: &mut dyn FnMut(&[u8]) -> _| fill(tensor, sink);
            let source = Source {
                tensors: &tensors[part.clone()],
                metadata,
                fill: &mut fill,
            };
            each(number, source)?;
        }
        Ok(())
    }
}

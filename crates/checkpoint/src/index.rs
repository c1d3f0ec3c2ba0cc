//! The index of an opened checkpoint: what every loader works from.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Digest, Dtype, Error, Format, Hasher};

/// An opened checkpoint: its tensors as ranges of bytes. Holds no weights and no open file.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    format: Format,
    tensors: Vec<TensorRange>,
    by_name: HashMap<String, usize>,
    ignored: Vec<String>,
}

/// Where a tensor lies, and how its bytes are to be read.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorRange {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions, row-major and contiguous.
    pub shape: Vec<usize>,
    /// The file that holds it.
    pub file: Arc<Path>,
    /// Where its first byte lies in the file.
    pub offset: u64,
}

impl Checkpoint {
    /// Opens a safetensors file, a `.pth` file, or a folder of per-tensor safetensors files; the format
    /// is read off the contents, not off the name.
    ///
    /// # Errors
    ///
    /// If the path does not exist, is none of these formats, is truncated, or contradicts itself.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, Error> {
        let path = path.as_ref();
        let format = Format::detect(path)?;
        let found = format.read_index(path)?;
        let mut by_name = HashMap::with_capacity(found.tensors.len());
        for (position, tensor) in found.tensors.iter().enumerate() {
            tensor.check_within_file()?;
            if by_name.insert(tensor.name.clone(), position).is_some() {
                let reason = format!("holds tensor `{}` twice", tensor.name);
                return Err(Error::invalid(path, reason));
            }
        }
        Ok(Checkpoint {
            path: path.to_owned(),
            format,
            tensors: found.tensors,
            by_name,
            ignored: found.ignored,
        })
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format found.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Every tensor of weights, in the order of the file.
    pub fn tensors(&self) -> &[TensorRange] {
        &self.tensors
    }

    /// Entries that are no weights and were left out: the causal mask buffers (`….att.mask`) of the
    /// book's state dicts, which the model builds itself.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The tensor with this name and shape.
    ///
    /// # Errors
    ///
    /// If there is none, or it has another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<&TensorRange, Error> {
        let Some(&position) = self.by_name.get(name) else {
            return Err(Error::invalid(
                &self.path,
                format!("holds no tensor `{name}`"),
            ));
        };
        let tensor = &self.tensors[position];
        if tensor.shape != shape {
            let reason = format!(
                "tensor `{name}` has shape {:?}, and the model needs {shape:?}",
                tensor.shape
            );
            return Err(Error::invalid(&self.path, reason));
        }
        Ok(tensor)
    }

    /// The dtype that all tensors share.
    ///
    /// # Errors
    ///
    /// If the checkpoint is empty or mixes dtypes.
    pub fn dtype(&self) -> Result<Dtype, Error> {
        let first = self.tensors.first();
        let first = first.ok_or_else(|| Error::invalid(&self.path, "holds no tensors"))?;
        match self
            .tensors
            .iter()
            .find(|tensor| tensor.dtype != first.dtype)
        {
            None => Ok(first.dtype),
            Some(other) => {
                let reason = format!(
                    "mixes dtypes: `{}` is {}, `{}` is {}",
                    first.name, first.dtype, other.name, other.dtype
                );
                Err(Error::invalid(&self.path, reason))
            }
        }
    }

    /// The bytes of all tensors together.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(TensorRange::bytes).sum()
    }
}

impl TensorRange {
    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product::<u64>() * self.dtype.bytes()
    }

    /// The bytes of one row: of one element, where there is one dimension.
    pub fn row_bytes(&self) -> u64 {
        let row: u64 = self.shape.iter().skip(1).map(|&size| size as u64).product();
        row * self.dtype.bytes()
    }

    /// The bytes of these rows within the file.
    pub fn rows(&self, rows: Range<usize>) -> Range<u64> {
        let row_bytes = self.row_bytes();
        self.offset + rows.start as u64 * row_bytes..self.offset + rows.end as u64 * row_bytes
    }

    /// Reads `rows` into `buffer`, whose length is that of the rows.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or has shrunk since it was opened.
    pub fn read_rows(&self, rows: Range<usize>, buffer: &mut [u8]) -> Result<(), Error> {
        let range = self.rows(rows);
        assert_eq!(
            range.end - range.start,
            buffer.len() as u64,
            "{}",
            self.name
        );
        let mut file = File::open(&self.file).map_err(Error::io(&self.file, "open"))?;
        file.seek(SeekFrom::Start(range.start))
            .and_then(|_| file.read_exact(buffer))
            .map_err(Error::io(&self.file, "read a tensor"))
    }

    /// Reads the tensor in pieces of at most `piece_bytes`, in order.
    ///
    /// # Errors
    ///
    /// As [`TensorRange::read_rows`]; or what `each` returns.
    pub fn read_in_pieces<E: From<Error>>(
        &self,
        piece_bytes: usize,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut file = File::open(&self.file).map_err(Error::io(&self.file, "open"))?;
        file.seek(SeekFrom::Start(self.offset))
            .map_err(Error::io(&self.file, "seek"))?;
        let mut left = self.bytes();
        let mut buffer = vec![0; piece_bytes.min(left as usize)];
        while left > 0 {
            let piece = &mut buffer[..piece_bytes.min(left as usize)];
            file.read_exact(piece)
                .map_err(Error::io(&self.file, "read a tensor"))?;
            each(piece)?;
            left -= piece.len() as u64;
        }
        Ok(())
    }

    /// The digest of the tensor's bytes.
    ///
    /// # Errors
    ///
    /// As [`TensorRange::read_rows`].
    pub fn digest(&self) -> Result<Digest, Error> {
        let mut hasher = Hasher::default();
        self.read_in_pieces(1 << 20, |piece| {
            hasher.update(piece);
            Ok::<_, Error>(())
        })?;
        Ok(hasher.finish())
    }

    fn check_within_file(&self) -> Result<(), Error> {
        let length = std::fs::metadata(&self.file)
            .map_err(Error::io(&self.file, "open"))?
            .len();
        let bytes = self
            .shape
            .iter()
            .try_fold(self.dtype.bytes(), |bytes, &size| {
                bytes.checked_mul(size as u64)
            });
        let end = bytes.and_then(|bytes| self.offset.checked_add(bytes));
        match end {
            Some(end) if end <= length => Ok(()),
            Some(end) => {
                let reason = format!(
                    "tensor `{}` ends at byte {end}, and the file at {length}: it is truncated",
                    self.name
                );
                Err(Error::invalid(&self.file, reason))
            }
            None => {
                let reason = format!("tensor `{}` is larger than any file", self.name);
                Err(Error::invalid(&self.file, reason))
            }
        }
    }
}

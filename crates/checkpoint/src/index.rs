//! The index of an opened checkpoint: what every loader works from.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::foreign::{self, Foreign};
use crate::format::{Other, Shard};
use crate::{Access, Digest, Dtype, Error, Format, Hasher, Reader, Unreadable, file, quoted};

/// No module has a parameter with a longer path, and messages quote names.
const MOST_NAME_BYTES: usize = 4096;

/// An opened checkpoint: its tensors as ranges of bytes. Holds no weights and no open file.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    format: Format,
    tensors: Vec<TensorRange>,
    by_name: HashMap<String, usize>,
    others: Vec<Other>,
    /// The others by their names; nothing for a name that stands there twice.
    others_by_name: HashMap<String, Option<usize>>,
    metadata: BTreeMap<String, String>,
    shard: Option<Shard>,
}

/// Where a tensor lies, and how its bytes are to be read.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorRange {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// For each dimension, how many elements lie from one to the next in the file.
    pub strides: Vec<usize>,
    /// The file that holds it.
    pub file: Arc<Path>,
    /// Where its first byte lies in the file.
    pub offset: u64,
}

/// The strides of a row-major tensor without gaps.
pub(crate) fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    let behind = (1..=shape.len()).map(|next| shape[next..].iter());
    behind
        .map(|sizes| sizes.fold(1, |product: usize, &size| product.saturating_mul(size)))
        .collect()
}

impl Checkpoint {
    /// Opens a safetensors file, a `.pth` file, a burnpack file, a folder of per-tensor safetensors files, or one of several
    /// files with an index (or that index); the format is read off the contents, not off the name. Of a folder with one
    /// whole checkpoint in it, as models are published, that is opened.
    ///
    /// # Errors
    ///
    /// If the path does not exist, is none of these formats, is truncated, contradicts itself, or holds no tensor that can be
    /// read.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, Error> {
        Checkpoint::open_found(path.as_ref(), None)?.with_weights()
    }

    /// The same of a file of PyTorch's with several state dicts, or with one under a key of its own: of that at `key`, a path
    /// of keys with dots between them (`ema.state_dict`). The empty key is the whole of what was saved.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::open`]; or if there is no such key, and the error names those there are.
    pub fn open_at(path: impl AsRef<Path>, key: &str) -> Result<Checkpoint, Error> {
        Checkpoint::open_found(path.as_ref(), Some(key))?.with_weights()
    }

    /// The same for whoever reads tensors of any dtype, at a key where one is given: one of doubles or of integers alone is opened,
    /// too, though it holds nothing that [`Checkpoint::tensors`] lists.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::open_at`].
    pub fn open_any(path: impl AsRef<Path>, key: Option<&str>) -> Result<Checkpoint, Error> {
        let opened = Checkpoint::open_found(path.as_ref(), key)?;
        let is_empty = opened.all().next().is_none();
        match is_empty {
            false => Ok(opened),
            true => opened.with_weights(),
        }
    }

    fn open_found(path: &Path, key: Option<&str>) -> Result<Checkpoint, Error> {
        let path = &whole_in(path);
        let format = Format::detect(path)?;
        let mut found = format.read_index(path, key)?;
        let tensors = found.tensors.iter().map(|tensor| &*tensor.name);
        let mut names = tensors.chain(found.others.iter().map(|other| &*other.name));
        if let Some(name) = names.find(|name| name.len() > MOST_NAME_BYTES) {
            let reason = format!(
                "has an entry whose name has {} bytes, and at most {MOST_NAME_BYTES} are read: it begins with {}",
                name.len(),
                quoted(&name[..name.floor_char_boundary(64)])
            );
            return Err(Error::invalid(path, reason));
        }
        found.tensors.iter().try_for_each(TensorRange::check)?;
        found.others.iter_mut().for_each(Other::check);
        let by_name = by_name(path, &found.tensors)?;
        let checkpoint = Checkpoint {
            path: path.to_owned(),
            format,
            tensors: found.tensors,
            by_name,
            others_by_name: others_by_name(&found.others),
            others: found.others,
            metadata: found.metadata,
            shard: match format {
                Format::Safetensors | Format::Pth => Shard::of(path),
                _ => None,
            },
        };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// That it is a model's, as far as that can be told without the model.
    fn check(&self) -> Result<(), Error> {
        let tensors = self.tensors.iter().map(|tensor| &*tensor.name);
        let others = self.others.iter().map(|other| &*other.name);
        if foreign::is_adapter(&self.path, tensors.chain(others)) {
            return Err(Error::Foreign {
                path: self.path.clone(),
                kind: Foreign::Adapter,
            });
        }
        Ok(())
    }

    /// That it holds weights.
    fn with_weights(self) -> Result<Checkpoint, Error> {
        if !self.tensors.is_empty() {
            return Ok(self);
        }
        let is_tensor = |other: &&Other| other.reason != Unreadable::NoTensor;
        let first = self.others.iter().find(is_tensor);
        match first.or(self.others.first()) {
            // A checkpoint without entries lacks what is asked of it, by name.
            None => Ok(self),
            Some(first) => Err(Error::NoWeights {
                path: self.path.clone(),
                entries: self.others.len(),
                first: Box::new(first.clone()),
            }),
        }
    }

    /// The same checkpoint with its tensors named and laid out otherwise: parts of them, transposed, or one under two
    /// names.
    ///
    /// # Errors
    ///
    /// If two of them have one name.
    pub fn with_tensors(self, tensors: Vec<TensorRange>) -> Result<Checkpoint, Error> {
        let by_name = by_name(&self.path, &tensors)?;
        Ok(Checkpoint {
            tensors,
            by_name,
            ..self
        })
    }

    /// These of its tensors, or parts of them, under names of their own, and nothing else of it.
    ///
    /// # Errors
    ///
    /// If two of them have one name.
    pub fn only(&self, tensors: Vec<TensorRange>) -> Result<Checkpoint, Error> {
        let by_name = by_name(&self.path, &tensors)?;
        Ok(Checkpoint {
            path: self.path.clone(),
            format: self.format,
            tensors,
            by_name,
            others: Vec::new(),
            others_by_name: HashMap::new(),
            metadata: self.metadata.clone(),
            shard: self.shard.clone(),
        })
    }

    /// The same checkpoint with other entries that are no weights: under other names, say, which their tensors get, too.
    pub fn with_others(self, mut others: Vec<Other>) -> Checkpoint {
        others.iter_mut().for_each(Other::name_tensor);
        Checkpoint {
            others_by_name: others_by_name(&others),
            others,
            ..self
        }
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

    /// Entries that are no weights, such as masks of booleans. Those that can be read all the same are found by
    /// [`Checkpoint::find_any`].
    pub fn others(&self) -> &[Other] {
        &self.others
    }

    /// That it is a file which is one of several, opened without the others: what is said of a model's size by its tensors is
    /// then wrong.
    pub fn shard(&self) -> Option<&Shard> {
        self.shard.as_ref()
    }

    /// What the checkpoint says of itself in words, by names: the metadata of safetensors files, and numbers and texts that
    /// training programs keep beside a state dict (`model_args.n_head`).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Every tensor that can be read, of whatever dtype: those of weights in the order of the file, then the others.
    pub fn all(&self) -> impl Iterator<Item = &TensorRange> {
        let others = self.others.iter();
        let others = others.filter(|other| !self.by_name.contains_key(&other.name));
        let others = others.filter_map(|other| self.find_any(&other.name));
        self.tensors.iter().chain(others)
    }

    /// The tensor of weights with this name and shape.
    ///
    /// # Errors
    ///
    /// If there is none, or it has another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<&TensorRange, Error> {
        let Some(tensor) = self.find(name) else {
            let other = self.others.iter().find(|other| other.name == name);
            let reason = match other {
                Some(other) => format!("tensor `{name}` {}", other.reason),
                None => format!("holds no tensor `{name}`"),
            };
            return Err(Error::invalid(&self.path, reason));
        };
        if tensor.shape != shape {
            let reason = format!(
                "tensor `{name}` has shape {:?}, and the model needs {shape:?}",
                tensor.shape
            );
            return Err(Error::invalid(&self.path, reason));
        }
        Ok(tensor)
    }

    /// The tensor of weights with this name, whatever its shape.
    pub fn find(&self, name: &str) -> Option<&TensorRange> {
        let position = self.by_name.get(name)?;
        Some(&self.tensors[*position])
    }

    /// The tensor with this name that can be read, of whatever dtype and shape. Why there is none is said among
    /// [`Checkpoint::others`].
    pub fn find_any(&self, name: &str) -> Option<&TensorRange> {
        self.find(name).or_else(|| {
            let position = self.others_by_name.get(name)?;
            self.others[(*position)?].tensor()
        })
    }

    /// The dtype that all tensors of weights share.
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

    /// The bytes of all tensors of weights together.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(TensorRange::bytes).sum()
    }
}

/// The one checkpoint of a folder as models are published; the path itself, where it is no such folder.
fn whole_in(path: &Path) -> PathBuf {
    let order = [
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ];
    let mut there = order.iter().map(|name| path.join(name));
    there
        .find(|path| path.is_file())
        .unwrap_or_else(|| path.to_owned())
}

fn by_name(path: &Path, tensors: &[TensorRange]) -> Result<HashMap<String, usize>, Error> {
    let mut by_name = HashMap::with_capacity(tensors.len());
    for (position, tensor) in tensors.iter().enumerate() {
        if let Some(first) = by_name.insert(tensor.name.clone(), position) {
            let (one, other) = (&tensors[first].file, &tensor.file);
            let place = match one == other {
                true => String::new(),
                false => format!(", in {} and in {}", one.display(), other.display()),
            };
            let reason = format!("holds tensor `{}` twice{place}", tensor.name);
            return Err(Error::invalid(path, reason));
        }
    }
    Ok(by_name)
}

fn others_by_name(others: &[Other]) -> HashMap<String, Option<usize>> {
    let mut by_name = HashMap::with_capacity(others.len());
    for (position, other) in others.iter().enumerate() {
        let place = by_name.entry(other.name.clone());
        place
            .and_modify(|position| *position = None)
            .or_insert(Some(position));
    }
    by_name
}

impl TensorRange {
    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product::<u64>() * self.dtype.bytes()
    }

    /// The bytes of one row: of one element, where there is one dimension or none.
    pub fn row_bytes(&self) -> u64 {
        let row: u64 = self.shape.iter().skip(1).map(|&size| size as u64).product();
        row * self.dtype.bytes()
    }

    /// Whether its bytes lie in the file as they do in memory: row-major, without gaps.
    pub fn is_contiguous(&self) -> bool {
        let expected = contiguous_strides(&self.shape);
        let mut dimensions = self.shape.iter().zip(self.strides.iter().zip(&expected));
        // The stride of a dimension of one element means nothing.
        dimensions.all(|(&size, (stride, expected))| size <= 1 || stride == expected)
    }

    /// The same matrix with rows and columns exchanged: other strides, the same bytes.
    ///
    /// # Panics
    ///
    /// If it is no matrix.
    pub fn transposed(mut self) -> TensorRange {
        assert_eq!(self.shape.len(), 2, "{} is no matrix", self.name);
        self.shape.reverse();
        self.strides.reverse();
        self
    }

    /// Rows of it, as a tensor.
    ///
    /// # Panics
    ///
    /// If it has no such rows.
    pub fn narrowed(mut self, rows: Range<usize>) -> TensorRange {
        assert!(rows.end <= self.shape[0], "{} has fewer rows", self.name);
        self.offset += (rows.start * self.strides[0]) as u64 * self.dtype.bytes();
        self.shape[0] = rows.len();
        self
    }

    /// Where these rows begin and end among the bytes that the tensor has in memory.
    pub fn rows(&self, rows: Range<usize>) -> Range<u64> {
        let row_bytes = self.row_bytes();
        rows.start as u64 * row_bytes..rows.end as u64 * row_bytes
    }

    /// Where such bytes lie in the file; `None` where they do not lie in a row.
    pub fn in_file(&self, bytes: Range<u64>) -> Option<Range<u64>> {
        let is_contiguous = self.is_contiguous();
        is_contiguous.then(|| self.offset + bytes.start..self.offset + bytes.end)
    }

    /// The bytes of the file from the first to the last of these rows, gaps included.
    pub fn span(&self, rows: Range<usize>) -> Range<u64> {
        let Some(&row_stride) = self.strides.first() else {
            return self.offset..self.offset + self.dtype.bytes();
        };
        let start = self.offset + (rows.start * row_stride) as u64 * self.dtype.bytes();
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        let elements = span_elements(&shape, &self.strides).unwrap_or(0);
        start..start + elements * self.dtype.bytes()
    }

    /// The largest length of a piece, at most `piece_bytes`, that is read well: of whole rows, where the tensor is not
    /// contiguous.
    pub fn piece_bytes(&self, piece_bytes: usize) -> usize {
        let row_bytes = self.row_bytes() as usize;
        match self.is_contiguous() || row_bytes > piece_bytes || row_bytes == 0 {
            true => piece_bytes,
            false => piece_bytes / row_bytes * row_bytes,
        }
    }

    /// Reads `rows` into `buffer`, whose length is that of the rows. A tensor without dimensions has one row.
    ///
    /// # Errors
    ///
    /// If it has no such rows; or if the file cannot be read, or has shrunk since it was opened.
    ///
    /// # Panics
    ///
    /// If `buffer` has another length.
    pub fn read_rows(&self, rows: Range<usize>, buffer: &mut [u8]) -> Result<(), Error> {
        self.check_rows(&rows)?;
        let range = self.rows(rows);
        assert_eq!(
            range.end - range.start,
            buffer.len() as u64,
            "{}",
            self.name
        );
        Reader::new(Access::Buffered).read(self, range.start, buffer)
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
        let mut reader = Reader::new(Access::Buffered);
        let bytes = self.bytes();
        let step = (self.piece_bytes(piece_bytes) as u64).min(bytes);
        let mut buffer = vec![0; step as usize];
        for start in (0..bytes).step_by(step.max(1) as usize) {
            let piece = &mut buffer[..step.min(bytes - start) as usize];
            reader.read(self, start, piece)?;
            each(piece)?;
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

    /// Whether another has the same elements, which are read.
    pub(crate) fn is_same(&self, other: &TensorRange) -> Result<bool, Error> {
        if (self.dtype, &self.shape) != (other.dtype, &other.shape) {
            return Ok(false);
        }
        self.check()?;
        other.check()?;
        Ok(self.digest()? == other.digest()?)
    }

    /// Where its last byte ends in the file; `None` if it is empty, or that is no number.
    pub(crate) fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.bytes_in_file()?)
    }

    /// The bytes of the file from its first to its last, gaps included; `None` where that is no number.
    pub fn bytes_in_file(&self) -> Option<u64> {
        let is_whole = self.shape.len() == self.strides.len();
        let elements = is_whole.then(|| span_elements(&self.shape, &self.strides))??;
        elements.checked_mul(self.dtype.bytes())
    }

    /// Number of bytes; `None` where that is no number.
    pub(crate) fn bytes_in_memory(&self) -> Option<u64> {
        let mut sizes = self.shape.iter();
        let elements = sizes.try_fold(1u64, |all, &size| all.checked_mul(size as u64));
        elements?.checked_mul(self.dtype.bytes())
    }

    /// That it has these of the bytes that it has in memory, and that they can be read.
    pub(crate) fn check_part(&self, start: u64, length: u64) -> Result<(), Error> {
        let there = self.check_size()?;
        let end = start.checked_add(length);
        if end.is_none_or(|end| end > there) {
            let asked = start..end.unwrap_or(u64::MAX);
            return Err(self.outside("bytes", there, asked));
        }
        let element = self.dtype.bytes();
        let is_whole = start.is_multiple_of(element) && length.is_multiple_of(element);
        match is_whole || self.is_contiguous() {
            true => Ok(()),
            false => {
                let reason = format!(
                    "tensor `{}` has gaps, and is read by whole elements: {length} bytes from byte {start} on are none",
                    self.name
                );
                Err(Error::invalid(&self.file, reason))
            }
        }
    }

    /// That it has these rows, and that they can be read.
    pub(crate) fn check_rows(&self, rows: &Range<usize>) -> Result<(), Error> {
        self.check_size()?;
        let there = self.shape.first().copied().unwrap_or(1);
        match rows.start <= rows.end && rows.end <= there {
            true => Ok(()),
            false => {
                let asked = rows.start as u64..rows.end as u64;
                Err(self.outside("rows", there as u64, asked))
            }
        }
    }

    fn outside(&self, unit: &'static str, there: u64, asked: Range<u64>) -> Error {
        Error::Outside {
            path: self.file.to_path_buf(),
            tensor: self.name.clone(),
            unit,
            there,
            asked,
        }
    }

    /// That it can be gathered; says how many bytes it has in memory. Of a checkpoint's own tensors this is known: others can be
    /// made of them, and say anything.
    fn check_size(&self) -> Result<u64, Error> {
        self.check_order()?;
        let bytes = self.bytes_in_memory();
        let bytes = bytes.filter(|&bytes| bytes == 0 || self.end().is_some());
        bytes.ok_or_else(|| {
            let reason = format!("tensor `{}` is larger than its file", self.name);
            Error::invalid(&self.file, reason)
        })
    }

    /// That it is a matrix, or has no gaps.
    fn check_order(&self) -> Result<(), Error> {
        let outer = self.shape.len().saturating_sub(2);
        let is_matrix = self.shape[..outer].iter().all(|&size| size == 1);
        match is_matrix || self.is_contiguous() {
            true => Ok(()),
            false => {
                let reason = format!(
                    "tensor `{}` of shape {:?} is not contiguous: call .contiguous() on it before saving",
                    self.name, self.shape
                );
                Err(Error::invalid(&self.file, reason))
            }
        }
    }

    /// That its elements lie within the file, and can be read from there.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refused = |reason| Err(Error::invalid(&self.file, reason));
        let length = file::check(&self.file)?;
        self.check_order()?;
        let name = &self.name;
        // In memory it has more elements than in the file where a stride is 0, but not without end.
        let in_memory = self.bytes_in_memory().filter(|&bytes| bytes <= length);
        match self.end().filter(|_| in_memory.is_some()) {
            Some(end) if end <= length => Ok(()),
            Some(end) => refused(format!(
                "tensor `{name}` ends at byte {end}, and the file at {length}: it is truncated",
            )),
            None => refused(format!("tensor `{name}` is larger than its file")),
        }
    }
}

/// Elements from the first to the last, gaps included; `None` where that is no number.
fn span_elements(shape: &[usize], strides: &[usize]) -> Option<u64> {
    let mut dimensions = shape.iter().zip(strides);
    let last = dimensions.try_fold(0u64, |last, (&size, &stride)| {
        let steps = (size as u64).checked_sub(1)?;
        last.checked_add(steps.checked_mul(stride as u64)?)
    });
    last?.checked_add(1)
}

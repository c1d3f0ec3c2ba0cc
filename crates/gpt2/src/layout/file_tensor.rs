//! Tensors as a file has them, made of the model's, and written block by block.
//!
//! What is held is a block of rows of the file's tensor, however large that is.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use checkpoint::{Checkpoint, Format, TensorMeta, Written};

/// What is gathered at once.
const BLOCK_BYTES: u64 = 8 << 20;

/// A tensor as a file has it, and what of the model it is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct FileTensor {
    /// Its name, element type and shape in the file.
    pub meta: TensorMeta,
    pub(super) transposed: bool,
    /// Along the outputs, which are the columns of a transposed matrix.
    pub(super) parts: Vec<Part>,
}

/// A tensor of the model that is a part of a file's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    /// Its name in the model; `None` stands for zeros: a bias that the model does without.
    pub name: Option<String>,
    pub outputs: usize,
}

/// Where the elements of the model's tensors come from; `E` is what may go wrong there.
pub trait Blocks<E> {
    /// Appends the bytes of rows of the model's tensor of this name, or of rows of it transposed; row after row.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn read(
        &mut self,
        tensor: &TensorMeta,
        transposed: bool,
        rows: Range<usize>,
        to: &mut Vec<u8>,
    ) -> Result<(), E>;
}

/// Of a checkpoint whose tensors bear the model's own names.
impl<E: From<checkpoint::Error>> Blocks<E> for Checkpoint {
    fn read(
        &mut self,
        tensor: &TensorMeta,
        transposed: bool,
        rows: Range<usize>,
        to: &mut Vec<u8>,
    ) -> Result<(), E> {
        let found = self.tensor(&tensor.name, &tensor.shape)?.clone();
        let found = match transposed {
            true => found.transposed(),
            false => found,
        };
        let start = to.len();
        to.resize(start + rows.len() * found.row_bytes() as usize, 0);
        Ok(found.read_rows(rows, &mut to[start..])?)
    }
}

impl FileTensor {
    /// A tensor that is kept as it is, under its own name.
    pub fn whole(meta: TensorMeta) -> FileTensor {
        let part = Part {
            name: Some(meta.name.clone()),
            outputs: meta.shape[0],
        };
        FileTensor {
            meta,
            transposed: false,
            parts: vec![part],
        }
    }

    /// Hands out the tensor's bytes in order, block by block.
    pub(super) fn fill<E>(
        &self,
        blocks: &mut dyn Blocks<E>,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut block = Vec::new();
        match self.transposed {
            false => self.parts.iter().try_for_each(|part| {
                let rows_at_once = self.rows_at_once(self.row_bytes());
                for start in (0..part.outputs).step_by(rows_at_once) {
                    let rows = start..part.outputs.min(start + rows_at_once);
                    block.clear();
                    self.read(part, blocks, rows, &mut block)?;
                    sink(&block)?;
                }
                Ok(())
            }),
            true => {
                let (inputs, row_bytes) = (self.meta.shape[0], self.row_bytes());
                let rows_at_once = self.rows_at_once(row_bytes);
                let mut columns = Vec::new();
                for start in (0..inputs).step_by(rows_at_once) {
                    let rows = start..inputs.min(start + rows_at_once);
                    block.resize(rows.len() * row_bytes, 0);
                    let mut column = 0;
                    for part in &self.parts {
                        columns.clear();
                        self.read(part, blocks, rows.clone(), &mut columns)?;
                        let part_bytes = part.outputs * self.meta.dtype.bytes() as usize;
                        let lines = block.chunks_exact_mut(row_bytes);
                        for (line, piece) in lines.zip(columns.chunks_exact(part_bytes)) {
                            line[column..column + part_bytes].copy_from_slice(piece);
                        }
                        column += part_bytes;
                    }
                    sink(&block)?;
                }
                Ok(())
            }
        }
    }

    fn read<E>(
        &self,
        part: &Part,
        blocks: &mut dyn Blocks<E>,
        rows: Range<usize>,
        to: &mut Vec<u8>,
    ) -> Result<(), E> {
        let shape = self.shape_of(part);
        let Some(name) = &part.name else {
            let row: usize = match self.transposed {
                true => part.outputs,
                false => shape[1..].iter().product(),
            };
            let bytes = rows.len() * row * self.meta.dtype.bytes() as usize;
            to.resize(to.len() + bytes, 0);
            return Ok(());
        };
        let tensor = TensorMeta {
            name: name.clone(),
            dtype: self.meta.dtype,
            shape,
        };
        blocks.read(&tensor, self.transposed, rows, to)
    }

    /// The part's shape in the model.
    fn shape_of(&self, part: &Part) -> Vec<usize> {
        let mut shape = self.meta.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        shape[0] = part.outputs;
        shape
    }

    fn row_bytes(&self) -> usize {
        let row: usize = self.meta.shape[1..].iter().product();
        row * self.meta.dtype.bytes() as usize
    }

    fn rows_at_once(&self, row_bytes: usize) -> usize {
        (BLOCK_BYTES as usize / row_bytes.max(1)).max(1)
    }
}

/// Writes a checkpoint of these tensors: as [`checkpoint::write_with_metadata`] does, with a block in memory and no more. `after` hears of
/// the bytes that were written last.
///
/// # Errors
///
/// If the disk refuses, or what `blocks` or `after` return.
pub fn write_tensors<E: From<checkpoint::Error> + Display>(
    path: &Path,
    format: Format,
    tensors: &[FileTensor],
    metadata: &BTreeMap<String, String>,
    blocks: &mut dyn Blocks<E>,
    after: &mut dyn FnMut(u64) -> Result<(), E>,
) -> Result<Written, E> {
    let metas: Vec<TensorMeta> = tensors.iter().map(|tensor| tensor.meta.clone()).collect();
    let by_name: HashMap<&str, &FileTensor> = tensors
        .iter()
        .map(|tensor| (&*tensor.meta.name, tensor))
        .collect();
    // What a writer of files has no word for.
    let mut failed = None;
    let written =
        checkpoint::write_with_metadata(path, format, &metas, metadata, &mut |meta, sink| {
            let filled = by_name[&*meta.name].fill(blocks, &mut |piece| {
                sink(piece)?;
                after(piece.len() as u64)
            });
            filled.map_err(|error: E| {
                let reason = error.to_string();
                failed = Some(error);
                checkpoint::Error::Invalid {
                    path: path.to_owned(),
                    reason,
                }
            })
        });
    match failed {
        Some(error) => Err(error),
        None => Ok(written?),
    }
}

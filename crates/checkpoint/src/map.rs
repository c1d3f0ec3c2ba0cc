//! A checkpoint mapped into memory.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::{Checkpoint, Error, TensorRange};

/// The files of a checkpoint, mapped read-only. Pages are read when they are touched, and the kernel
/// may drop them again: they are copies of the file.
pub struct Mapped {
    files: HashMap<Arc<Path>, Mmap>,
}

impl Mapped {
    /// Maps every file of `checkpoint`.
    ///
    /// # Safety
    ///
    /// The caller promises that no file is written to or truncated while the map lives: bytes that
    /// change under a shared slice are undefined behaviour, and touching a page past the new end of a
    /// file raises SIGBUS.
    ///
    /// # Errors
    ///
    /// If a file cannot be opened or mapped.
    pub unsafe fn new(checkpoint: &Checkpoint) -> Result<Mapped, Error> {
        let mut files = HashMap::new();
        for tensor in checkpoint.tensors() {
            let path = &tensor.file;
            if !files.contains_key(path) {
                let file = File::open(path).map_err(Error::io(path, "open"))?;
                // SAFETY: passed on to the caller of this function.
                let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map"))?;
                files.insert(Arc::clone(path), map);
            }
        }
        for tensor in checkpoint.tensors() {
            let end = tensor.offset + tensor.bytes();
            if files[&tensor.file].len() as u64 <= end.saturating_sub(1) {
                return Err(Error::invalid(
                    &tensor.file,
                    "has shrunk since it was opened",
                ));
            }
        }
        Ok(Mapped { files })
    }

    /// The bytes of these rows of a tensor of the checkpoint that was mapped.
    ///
    /// # Panics
    ///
    /// If `tensor` is of another checkpoint.
    pub fn rows(&self, tensor: &TensorRange, rows: Range<usize>) -> &[u8] {
        let range = tensor.rows(rows);
        &self.files[&tensor.file][range.start as usize..range.end as usize]
    }
}

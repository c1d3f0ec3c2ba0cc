//! A checkpoint mapped into memory.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut, MmapOptions};

use crate::strided::{Source, gather};
use crate::{Checkpoint, Error, TensorRange, file};

/// The files of a checkpoint, mapped read-only. Pages are read when they are touched, and the kernel
/// may drop them again: they are copies of the file.
pub struct Mapped {
    files: HashMap<Arc<Path>, Mmap>,
}

impl Mapped {
    /// Maps every file of `checkpoint` that weights lie in.
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
        // SAFETY: passed on to the caller of this function.
        unsafe { Mapped::of(checkpoint.tensors()) }
    }

    /// Maps the files that these tensors lie in: of [`Checkpoint::all`], say, where not only weights are read.
    ///
    /// # Safety
    ///
    /// As for [`Mapped::new`].
    ///
    /// # Errors
    ///
    /// As [`Mapped::new`].
    pub unsafe fn of<'a>(
        tensors: impl IntoIterator<Item = &'a TensorRange>,
    ) -> Result<Mapped, Error> {
        let tensors: Vec<&TensorRange> = tensors.into_iter().collect();
        let mut files = HashMap::new();
        for tensor in &tensors {
            let path = &tensor.file;
            if !files.contains_key(path) {
                let (file, _) = file::open(path)?;
                // SAFETY: passed on to the caller of this function.
                let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map"))?;
                files.insert(Arc::clone(path), map);
            }
        }
        for tensor in tensors {
            let end = tensor
                .span(0..tensor.shape.first().copied().unwrap_or(1))
                .end;
            if (files[&tensor.file].len() as u64) < end {
                return Err(Error::invalid(
                    &tensor.file,
                    "has shrunk since it was opened",
                ));
            }
        }
        Ok(Mapped { files })
    }

    /// Copies these rows of a tensor whose file is mapped into `buffer`, whose length is theirs. A tensor without dimensions has
    /// one row.
    ///
    /// # Panics
    ///
    /// If `tensor` lies in another file or has no such rows, or `buffer` has another length.
    pub fn copy_rows(&self, tensor: &TensorRange, rows: Range<usize>, buffer: &mut [u8]) {
        if let Err(error) = tensor.check_rows(&rows) {
            panic!("{error}");
        }
        let file = &self.files[&tensor.file];
        let range = tensor.rows(rows);
        assert_eq!(
            range.end - range.start,
            buffer.len() as u64,
            "{}",
            tensor.name
        );
        if let Some(range) = tensor.in_file(range.clone()) {
            buffer.copy_from_slice(&file[range.start as usize..range.end as usize]);
            return;
        }
        let mut from_map = |offset: u64, to: &mut [u8]| {
            let start = offset as usize;
            to.copy_from_slice(&file[start..start + to.len()]);
            Ok(())
        };
        let source = Source::memory(&mut from_map);
        let gathered = gather(tensor, range.start, buffer, &mut Vec::new(), source);
        gathered.expect("a map has no errors");
    }
}

/// Rows of a tensor, mapped privately: the pages are those of the file until somebody writes to them, and then a copy
/// of that page alone. The file is never written.
pub struct PrivateMap {
    map: MmapMut,
}

impl PrivateMap {
    /// Maps `rows` of a tensor, and what lies between them ([`TensorRange::span`]). Nothing is read before it is touched.
    ///
    /// # Safety
    ///
    /// As for [`Mapped::new`].
    ///
    /// # Errors
    ///
    /// If the tensor has no such rows; or if the file cannot be opened or mapped, or has shrunk since it was opened.
    pub unsafe fn new(tensor: &TensorRange, rows: Range<usize>) -> Result<PrivateMap, Error> {
        tensor.check_rows(&rows)?;
        let range = tensor.span(rows);
        let path = &tensor.file;
        let (file, length) = file::open(path)?;
        if length < range.end {
            return Err(Error::invalid(path, "has shrunk since it was opened"));
        }
        let mut options = MmapOptions::new();
        options.offset(range.start);
        options.len((range.end - range.start) as usize);
        // SAFETY: passed on to the caller of this function.
        let map = unsafe { options.map_copy(&file) }.map_err(Error::io(path, "map"))?;
        Ok(PrivateMap { map })
    }

    /// Reads every page that is not in memory yet, and enters all of them into this process's page table.
    pub fn populate(&self) {
        // Since Linux 5.14. Populating when mapping (MAP_POPULATE) would copy every page: it acts as a write.
        #[cfg(target_os = "linux")]
        if self.map.advise(memmap2::Advice::PopulateRead).is_ok() {
            return;
        }
        let sum: u64 = self
            .map
            .iter()
            .step_by(4096)
            .map(|&byte| u64::from(byte))
            .sum();
        std::hint::black_box(sum);
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The bytes, to be written: what is written is copied, page by page, and the file stays as it is.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, Format, TensorMeta, write};

    #[test]
    fn what_is_written_to_a_private_map_stays_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let meta = TensorMeta {
            name: "a".to_owned(),
            dtype: Dtype::F32,
            shape: vec![64, 64],
        };
        write(&path, Format::Safetensors, &[meta], &mut |_, sink| {
            sink(&[7; 4 * 64 * 64])
        })
        .unwrap();
        let before = std::fs::read(&path).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        // SAFETY: nobody else writes to the file.
        let mut map = unsafe { PrivateMap::new(&checkpoint.tensors()[0], 8..16) }.unwrap();
        map.populate();
        assert_eq!(map.bytes(), [7; 4 * 8 * 64]);
        map.bytes_mut().fill(9);
        assert_eq!(map.bytes(), [9; 4 * 8 * 64]);
        assert!(
            std::fs::read(&path).unwrap() == before,
            "the file was written"
        );
    }
}

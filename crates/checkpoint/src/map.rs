//! A checkpoint mapped into memory.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

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

/// Files that are mapped privately, each once however many tensors lie in it: the kernel gives a process some 65 000 maps.
#[derive(Default)]
pub struct PrivateMaps {
    files: HashMap<Arc<Path>, Shared>,
}

struct Shared {
    map: Arc<FileMap>,
    /// The ends of the ranges that somebody has, by their beginnings.
    given: BTreeMap<u64, u64>,
}

impl PrivateMaps {
    /// Maps `rows` of a tensor, and what lies between them ([`TensorRange::span`]). Nothing is read before it is touched. What lies
    /// where another tensor lies, too, gets a map of its own: each may write to its own bytes.
    ///
    /// # Safety
    ///
    /// As for [`Mapped::new`].
    ///
    /// # Errors
    ///
    /// If the tensor has no such rows; or if the file cannot be opened or mapped, or has shrunk since it was opened.
    pub unsafe fn rows(
        &mut self,
        tensor: &TensorRange,
        rows: Range<usize>,
    ) -> Result<PrivateMap, Error> {
        tensor.check_rows(&rows)?;
        let range = tensor.span(rows);
        let shared = match self.files.entry(Arc::clone(&tensor.file)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Shared {
                // SAFETY: passed on to the caller of this function.
                map: Arc::new(unsafe { FileMap::new(&tensor.file, None)? }),
                given: BTreeMap::new(),
            }),
        };
        let before = shared.given.range(..range.end).next_back();
        let is_free = before.is_none_or(|(_, &end)| end <= range.start);
        let map = match is_free {
            true => {
                shared.given.insert(range.start, range.end);
                Arc::clone(&shared.map)
            }
            // SAFETY: passed on to the caller of this function.
            false => Arc::new(unsafe { FileMap::new(&tensor.file, Some(range.clone()))? }),
        };
        PrivateMap::of(map, &tensor.file, range)
    }
}

/// Rows of a tensor, mapped privately: the pages are those of the file until somebody writes to them, and then a copy
/// of that page alone. The file is never written. Until something is written the system owes the process no memory for it, where it
/// counts that (Linux's `vm.overcommit_memory`).
pub struct PrivateMap {
    map: Arc<FileMap>,
    /// Of the map, and of no other value's.
    bytes: Range<usize>,
}

impl PrivateMap {
    /// Maps `rows` of one tensor, as [`PrivateMaps::rows`].
    ///
    /// # Safety
    ///
    /// As for [`Mapped::new`].
    ///
    /// # Errors
    ///
    /// As [`PrivateMaps::rows`].
    pub unsafe fn new(tensor: &TensorRange, rows: Range<usize>) -> Result<PrivateMap, Error> {
        tensor.check_rows(&rows)?;
        let range = tensor.span(rows);
        // SAFETY: passed on to the caller of this function.
        let map = unsafe { FileMap::new(&tensor.file, Some(range.clone()))? };
        PrivateMap::of(Arc::new(map), &tensor.file, range)
    }

    fn of(map: Arc<FileMap>, path: &Path, range: Range<u64>) -> Result<PrivateMap, Error> {
        let start = (range.start - map.offset) as usize;
        let end = (range.end - map.offset) as usize;
        match end <= map.map.len() {
            true => Ok(PrivateMap {
                map,
                bytes: start..end,
            }),
            false => Err(Error::invalid(path, "has shrunk since it was opened")),
        }
    }

    /// Reads every page that is not in memory yet, and enters all of them into this process's page table.
    pub fn populate(&self) {
        // Since Linux 5.14. Populating when mapping (MAP_POPULATE) would copy every page: it acts as a write.
        #[cfg(target_os = "linux")]
        {
            let (map, length) = (&self.map.map, self.bytes.len());
            let populated =
                map.advise_range(memmap2::Advice::PopulateRead, self.bytes.start, length);
            if populated.is_ok() {
                return;
            }
        }
        let every_page = self.bytes().iter().step_by(4096);
        let sum: u64 = every_page.map(|&byte| u64::from(byte)).sum();
        std::hint::black_box(sum);
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: inside the map, which lives as long as this. They are this value's alone, so that nobody writes them meanwhile.
        unsafe { std::slice::from_raw_parts(self.start(), self.bytes.len()) }
    }

    /// The bytes, to be written: what is written is copied, page by page, and the file stays as it is.
    ///
    /// # Panics
    ///
    /// If the system has no memory for copies of the file's pages.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.map.make_writable();
        // SAFETY: as above, and the pages can be written.
        unsafe { std::slice::from_raw_parts_mut(self.start().cast_mut(), self.bytes.len()) }
    }

    fn start(&self) -> *const u8 {
        // SAFETY: inside the map.
        unsafe { self.map.map.as_ptr().add(self.bytes.start) }
    }
}

#[cfg(target_os = "linux")]
type Pages = Mmap;
#[cfg(not(target_os = "linux"))]
type Pages = memmap2::MmapMut;

/// A file, or a range of it, mapped privately: read-only until somebody writes.
struct FileMap {
    map: Pages,
    /// Where it begins in the file.
    offset: u64,
    #[cfg(target_os = "linux")]
    is_writable: std::sync::OnceLock<rustix::io::Result<()>>,
}

impl FileMap {
    unsafe fn new(path: &Path, range: Option<Range<u64>>) -> Result<FileMap, Error> {
        let (file, length) = file::open(path)?;
        let range = range.unwrap_or(0..length);
        if length < range.end {
            return Err(Error::invalid(path, "has shrunk since it was opened"));
        }
        let mut options = MmapOptions::new();
        options.offset(range.start);
        options.len((range.end - range.start) as usize);
        #[cfg(target_os = "linux")]
        // SAFETY: passed on to the caller of this function.
        let map = unsafe { options.map_copy_read_only(&file) };
        #[cfg(not(target_os = "linux"))]
        // SAFETY: passed on to the caller of this function.
        let map = unsafe { options.map_copy(&file) };
        Ok(FileMap {
            map: map.map_err(Error::io(path, "map"))?,
            offset: range.start,
            #[cfg(target_os = "linux")]
            is_writable: std::sync::OnceLock::new(),
        })
    }

    #[cfg(target_os = "linux")]
    fn make_writable(&self) {
        use rustix::mm::{MprotectFlags, mprotect};
        let made = self.is_writable.get_or_init(|| {
            // A map begins at a page, what was asked for of it anywhere in that.
            let within = self.map.as_ptr().addr() % rustix::param::page_size();
            // SAFETY: inside the first page of the map.
            let start = unsafe { self.map.as_ptr().sub(within) }.cast_mut();
            // SAFETY: the whole map, which is private: more is allowed, and nothing that is there changes.
            unsafe {
                mprotect(
                    start.cast(),
                    self.map.len() + within,
                    MprotectFlags::READ | MprotectFlags::WRITE,
                )
            }
        });
        if let Err(error) = made {
            panic!("there is no memory for copies of a mapped file's pages: {error}");
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn make_writable(&self) {}
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

    #[test]
    fn tensors_of_a_file_share_its_map_and_each_writes_its_own_bytes_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let meta = |name: &str| TensorMeta {
            name: name.to_owned(),
            dtype: Dtype::F32,
            shape: vec![3, 5],
        };
        let metas = [meta("a"), meta("b")];
        write(&path, Format::Safetensors, &metas, &mut |_, sink| {
            sink(&[7; 60])
        })
        .unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        let [a, b] = checkpoint.tensors() else {
            panic!("two tensors");
        };
        let mut maps = PrivateMaps::default();
        // SAFETY: nobody writes to the file.
        let mut map = |tensor: &TensorRange, rows| unsafe { maps.rows(tensor, rows) }.unwrap();
        let (mut first, second) = (map(a, 0..3), map(b, 0..3));
        // The same bytes again, as two names of one tensor have them.
        let mut again = map(a, 1..3);
        assert!(Arc::ptr_eq(&first.map, &second.map) && !Arc::ptr_eq(&first.map, &again.map));
        first.bytes_mut().fill(9);
        again.bytes_mut().fill(8);
        assert_eq!(first.bytes(), [9; 60]);
        assert_eq!(second.bytes(), [7; 60]);
        assert_eq!(again.bytes(), [8; 40]);
        drop((maps, first));
        assert_eq!(second.bytes(), [7; 60]);
    }
}

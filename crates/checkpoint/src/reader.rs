//! Positioned reads: for loaders that read where they please, from several threads.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Error as IoError, ErrorKind};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::strided::{Panel, Source, at_least, gather};
use crate::{Error, TensorRange, file};

/// What direct I/O asks of offsets, lengths and memory: the block of any disk, and a page.
const BLOCK: usize = 4096;
/// How much is read at once through [`Access::Direct`].
const SCRATCH_BYTES: usize = 4 << 20;
/// How much of a [`Panel`] is read at once through the page cache.
const PANEL_BYTES: usize = 1 << 20;

/// Past the page cache, or through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Through the page cache.
    Buffered,
    /// Past it (`O_DIRECT`; Linux): from the disk into a buffer of the reader's, and from there to where it is
    /// wanted.
    Direct,
}

/// Reads byte ranges of files, which stay open. One for each thread: none shares a position or a buffer.
pub struct Reader {
    access: Access,
    files: HashMap<Arc<Path>, File>,
    scratch: Aligned,
    /// Segments of tensors that are not contiguous.
    segments: Vec<u8>,
}

impl Reader {
    /// A reader that has opened nothing yet.
    pub fn new(access: Access) -> Reader {
        Reader::with_buffer(access, SCRATCH_BYTES)
    }

    /// The same with a buffer of at least this length, where it reads past the page cache: what it reads at once then.
    pub fn with_buffer(access: Access, bytes: usize) -> Reader {
        Reader {
            access,
            files: HashMap::new(),
            scratch: Aligned::new(match access {
                Access::Buffered => 0,
                Access::Direct => bytes.max(BLOCK),
            }),
            segments: Vec::new(),
        }
    }

    /// Reads the bytes from `start` on of those that the tensor has in memory (row-major, without gaps) into `buffer`,
    /// all of it. What does not lie in the file so is gathered, with a buffer of at most 1 MiB; of such a tensor whole elements
    /// are read.
    ///
    /// # Errors
    ///
    /// If the tensor has no such bytes; or if the file cannot be opened (so), cannot be read, or ends before.
    pub fn read(
        &mut self,
        tensor: &TensorRange,
        start: u64,
        buffer: &mut [u8],
    ) -> Result<(), Error> {
        tensor.check_part(start, buffer.len() as u64)?;
        let path = &tensor.file;
        self.open(path)?;
        let (file, scratch) = (&self.files[path], &mut self.scratch);
        let mut read = |offset, buffer: &mut [u8]| match self.access {
            Access::Buffered => read_exact_at(file, buffer, offset),
            Access::Direct => read_blocks(file, scratch, offset, buffer),
        };
        let read = match tensor.is_contiguous() {
            true => read(tensor.offset + start, buffer),
            false => {
                let source = match self.access {
                    Access::Buffered => Source::cached(&mut read, file, tensor),
                    Access::Direct => Source::disk(&mut read),
                };
                gather(tensor, start, buffer, &mut self.segments, source)
            }
        };
        read.map_err(Error::io(path, "read a tensor"))
    }

    /// The most that a panel should have: more than a core's own cache holds would not stay there until it is put to its place; past the
    /// page cache, long reads are worth more than that.
    pub fn panel_bytes(&self) -> usize {
        match self.access {
            Access::Buffered => PANEL_BYTES,
            Access::Direct => self.scratch.bytes.saturating_sub(2 * BLOCK).max(BLOCK),
        }
    }

    /// Reads a panel, and puts it to its place.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, cannot be read, or ends before.
    pub fn read_panel(&mut self, panel: Panel<'_>) -> Result<(), Error> {
        let (path, span) = (Arc::clone(panel.file()), panel.span());
        self.open(&path)?;
        let file = &self.files[&path];
        let bytes = (span.end - span.start) as usize;
        let around = blocks(span.clone());
        let read = match self.access {
            // From where it was read to, if it fits there whole.
            Access::Direct if (around.end - around.start) as usize <= self.scratch.bytes => {
                let memory = &mut self.scratch.memory()[..(around.end - around.start) as usize];
                let skip = (span.start - around.start) as usize;
                let read = read_up_to(file, memory, around.start, skip + bytes);
                read.map(|()| &memory[skip..skip + bytes])
            }
            access => {
                let memory = at_least(&mut self.segments, bytes);
                let read = match access {
                    Access::Buffered => read_exact_at(file, memory, span.start),
                    Access::Direct => read_blocks(file, &mut self.scratch, span.start, memory),
                };
                read.map(|()| &*memory)
            }
        };
        panel.place(read.map_err(Error::io(&path, "read a tensor"))?);
        Ok(())
    }

    fn open(&mut self, path: &Arc<Path>) -> Result<(), Error> {
        if !self.files.contains_key(path) {
            let file = open(path, self.access)?;
            self.files.insert(Arc::clone(path), file);
        }
        Ok(())
    }
}

/// Opens a file to read from.
///
/// # Errors
///
/// If the file is not there, is no regular one, or its file system knows no direct I/O.
pub fn open(path: &Path, access: Access) -> Result<File, Error> {
    file::check(path)?;
    let mut options = File::options();
    options.read(true);
    if access == Access::Direct {
        direct(&mut options);
    }
    options.open(path).map_err(|error| match error.kind() {
        // What Linux answers where a file system has no way past the cache.
        ErrorKind::InvalidInput if access == Access::Direct => Error::NoDirectIo {
            path: path.to_owned(),
        },
        _ => Error::io(path, "open")(error),
    })
}

#[cfg(target_os = "linux")]
fn direct(options: &mut std::fs::OpenOptions) {
    let flag = rustix::fs::OFlags::DIRECT.bits() as i32;
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, flag);
}

/// Elsewhere the page cache is not gone round.
#[cfg(not(target_os = "linux"))]
fn direct(_: &mut std::fs::OpenOptions) {}

/// The whole blocks that hold a range of bytes.
pub fn blocks(range: Range<u64>) -> Range<u64> {
    let block = BLOCK as u64;
    range.start / block * block..range.end.next_multiple_of(block)
}

fn read_blocks(
    file: &File,
    scratch: &mut Aligned,
    offset: u64,
    buffer: &mut [u8],
) -> std::io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let wanted = offset + done as u64;
        let around = blocks(wanted..offset + buffer.len() as u64);
        let memory = scratch.memory();
        let length = memory.len().min((around.end - around.start) as usize);
        // The last block of a file may be short.
        let read = read_at(file, &mut memory[..length], around.start)?;
        let skip = (wanted - around.start) as usize;
        if read <= skip {
            return Err(IoError::from(ErrorKind::UnexpectedEof));
        }
        let count = (read - skip).min(buffer.len() - done);
        buffer[done..done + count].copy_from_slice(&memory[skip..skip + count]);
        done += count;
    }
    Ok(())
}

/// Reads blocks until so many bytes are there: the last block of a file may be short.
fn read_up_to(file: &File, blocks: &mut [u8], offset: u64, bytes: usize) -> std::io::Result<()> {
    let mut done = 0;
    while done < bytes {
        match read_at(file, &mut blocks[done..], offset + done as u64) {
            Ok(0) => return Err(IoError::from(ErrorKind::UnexpectedEof)),
            // A read that was short goes on from a block's beginning.
            Ok(count) if done + count < bytes => {
                let whole = (done + count) / BLOCK * BLOCK;
                if whole == done {
                    return Err(IoError::from(ErrorKind::UnexpectedEof));
                }
                done = whole;
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !buffer.is_empty() {
        match read_at(file, buffer, offset) {
            Ok(0) => return Err(IoError::from(ErrorKind::UnexpectedEof)),
            Ok(count) => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One read from `offset` on, which may be short.
///
/// # Errors
///
/// What the system answers.
#[cfg(unix)]
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

/// One read from `offset` on, which may be short.
///
/// # Errors
///
/// What the system answers.
#[cfg(windows)]
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

/// Memory that begins at a block, as direct I/O asks for.
pub struct Aligned {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl Aligned {
    /// Memory of whole blocks, at least `bytes` of it.
    pub fn new(bytes: usize) -> Aligned {
        let bytes = bytes.next_multiple_of(BLOCK);
        let memory = vec![0; bytes + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        Aligned {
            memory,
            start,
            bytes,
        }
    }

    /// All of it.
    pub fn memory(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dtype;

    fn bytes_of(path: &Path, count: usize) -> TensorRange {
        TensorRange {
            name: "a".to_owned(),
            dtype: Dtype::I8,
            shape: vec![count],
            strides: vec![1],
            file: path.into(),
            offset: 0,
        }
    }

    #[test]
    fn any_range_is_read_right_through_the_cache_and_past_it() {
        // Beside the sources: a temporary folder may lie in memory, where there is no direct I/O.
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let content: Vec<u8> = (0..50_000u32).map(|value| (value % 251) as u8).collect();
        std::fs::write(file.path(), &content).unwrap();
        let tensor = bytes_of(file.path(), content.len());
        for access in [Access::Buffered, Access::Direct] {
            if let Err(error) = open(file.path(), access) {
                assert_eq!(access, Access::Direct, "{error}");
                eprintln!("skipped: {error}");
                continue;
            }
            let mut reader = Reader::new(access);
            for (start, end) in [
                (0, 50_000),
                (1, 2),
                (4095, 4097),
                (8192, 12_288),
                (49_999, 50_000),
            ] {
                let mut buffer = vec![0; end - start];
                reader.read(&tensor, start as u64, &mut buffer).unwrap();
                assert!(buffer == content[start..end], "{access:?} {start}..{end}");
            }
            let mut beyond = [0; 2];
            let error = reader.read(&tensor, 49_999, &mut beyond).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(&file.path().display().to_string()), "{said}");
            // The tensor is said to be longer than the file, which was cut off after it was opened.
            let longer = bytes_of(file.path(), 50_001);
            let error = reader.read(&longer, 49_999, &mut beyond).unwrap_err();
            assert!(matches!(error, Error::Io { .. }), "{error}");
        }
    }

    #[test]
    fn no_byte_outside_of_a_tensor_is_read_in_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 64]).unwrap();
        let range = |shape: &[usize], strides: &[usize]| TensorRange {
            dtype: Dtype::F64,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            offset: 8,
            ..bytes_of(file.path(), 0)
        };
        let scalar = range(&[], &[]);
        let matrix = range(&[3, 2], &[2, 1]);
        let transposed = matrix.clone().transposed();
        let mut reader = Reader::new(Access::Buffered);
        let mut read = |tensor: &TensorRange, start: u64, bytes: usize| {
            reader.read(tensor, start, &mut vec![0; bytes])
        };
        for (tensor, start, bytes) in [(&scalar, 0, 8), (&matrix, 47, 1), (&transposed, 8, 40)] {
            read(tensor, start, bytes).unwrap();
            read(tensor, start + bytes as u64, 0).unwrap();
        }
        for (tensor, there, start, bytes) in [
            (&scalar, 8, 0, 9),
            (&scalar, 8, 8, 1),
            (&matrix, 48, 40, 9),
            (&matrix, 48, 49, 0),
            (&matrix, 48, u64::MAX, 8),
            (&transposed, 48, 40, 16),
            (&transposed, 48, u64::MAX - 7, 8),
        ] {
            let error = read(tensor, start, bytes).unwrap_err();
            let said = error.to_string();
            assert!(
                said.contains(&format!("tensor `a` has {there} bytes")),
                "{said}"
            );
            assert!(matches!(error, Error::Outside { .. }), "{said}");
        }
        // Where there are gaps, elements are not split, and only matrices are gathered.
        for (tensor, start, bytes) in [
            (&transposed, 4, 8),
            (&transposed, 8, 4),
            (&range(&[2, 1, 2], &[4, 1, 1]), 0, 32),
            (&range(&[usize::MAX, 2], &[0, 0]), 0, 8),
        ] {
            let said = read(tensor, start, bytes).unwrap_err().to_string();
            assert!(said.contains("tensor `a`"), "{said}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let tensor = bytes_of(Path::new("/no/such/file"), 1);
        let error = Reader::new(Access::Buffered).read(&tensor, 0, &mut [0]);
        assert!(error.unwrap_err().to_string().contains("/no/such/file"));
    }
}

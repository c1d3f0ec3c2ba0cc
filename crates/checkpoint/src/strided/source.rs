//! Where a tensor's bytes come from, and what beginning a read costs there.

use std::fs::File;
use std::io::Result;

use crate::TensorRange;

/// Reads bytes of a file from an offset on.
pub(crate) type ReadAt<'a> = dyn FnMut(u64, &mut [u8]) -> Result<()> + 'a;

/// How to read, and how much is read in the time that it takes to begin another read: gaps up to this length are read
/// rather than skipped.
pub(crate) struct Source<'a> {
    pub(super) read: &'a mut ReadAt<'a>,
    pub(super) gap_bytes: usize,
}

impl<'a> Source<'a> {
    /// Memory: a call, and a cache line or two.
    pub(crate) fn memory(read: &'a mut ReadAt<'a>) -> Source<'a> {
        Source {
            read,
            gap_bytes: 128,
        }
    }

    /// A disk: it answers after 0.1 ms, and then reads 2 GB/s and more.
    pub(crate) fn disk(read: &'a mut ReadAt<'a>) -> Source<'a> {
        Source {
            read,
            gap_bytes: 256 << 10,
        }
    }

    /// The page cache, if the tensor is in it: a system call takes as long as copying 6 KiB. Else the disk.
    ///
    /// Linux reads ahead of whoever reads in order, but not of whoever skips: each segment would be waited for alone. What
    /// is read with the gaps is cached for the next piece of the same matrix, whose segments lie in these gaps.
    pub(crate) fn cached(
        read: &'a mut ReadAt<'a>,
        file: &File,
        tensor: &TensorRange,
    ) -> Source<'a> {
        // Near its end, which is read last; its last page may have been read for the tensor behind it.
        let end = tensor.end().unwrap_or(tensor.offset);
        let near_end = end.saturating_sub(64 << 10).max(tensor.offset);
        match is_cached(file, near_end) {
            true => Source {
                read,
                gap_bytes: 6 << 10,
            },
            false => Source::disk(read),
        }
    }

    /// The same in elements, counted from the one at `offset`.
    pub(super) fn elements<const ELEMENT: usize>(self, offset: u64) -> Elements<'a> {
        Elements {
            offset,
            gap: self.gap_bytes / ELEMENT,
            read: self.read,
        }
    }
}

/// A [`Source`] in elements, counted from the tensor's first.
pub(super) struct Elements<'a> {
    offset: u64,
    /// The longest gap that is read.
    pub(super) gap: usize,
    read: &'a mut ReadAt<'a>,
}

impl Elements<'_> {
    /// Reads elements from the one at `at` on.
    pub(super) fn read<const ELEMENT: usize>(
        &mut self,
        at: usize,
        to: &mut [[u8; ELEMENT]],
    ) -> Result<()> {
        let offset = self.offset + (at * ELEMENT) as u64;
        (self.read)(offset, to.as_flattened_mut())
    }
}

#[cfg(target_os = "linux")]
fn is_cached(file: &File, offset: u64) -> bool {
    use rustix::io::{ReadWriteFlags, preadv2};

    let mut byte = [0];
    let mut buffers = [std::io::IoSliceMut::new(&mut byte)];
    // File systems that cannot say are taken for slow ones.
    preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT) == Ok(1)
}

/// Elsewhere nobody says.
#[cfg(not(target_os = "linux"))]
fn is_cached(_: &File, _: u64) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_cached_and_what_was_dropped_is_not() {
        // Beside the sources: what is in a temporary folder may lie in memory only.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        std::io::Write::write_all(&mut file, &[7; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        if is_cached(&file, 0) {
            eprintln!("skipped: the file system keeps what it has");
            return;
        }
        crate::read_at(&file, &mut [0], 0).unwrap();
        assert!(is_cached(&file, 0));
        assert!(!is_cached(&file, 1 << 20), "behind the end");
    }
}

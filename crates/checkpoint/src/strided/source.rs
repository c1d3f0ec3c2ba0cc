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

    /// The page cache, if the tensor is in it: a system call takes as long as copying 4 KiB. Else the disk.
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
                gap_bytes: 4 << 10,
            },
            false => Source::disk(read),
        }
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

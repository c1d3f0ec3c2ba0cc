//! One thread, and reads in flight through io_uring.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use checkpoint::{Access, Aligned, blocks};
use io_uring::{IoUring, opcode, types};

use super::{PieceReader, Source};
use crate::Error;
use crate::place::{Fill, Staging};

const BLOCK: usize = 4096;

/// A piece of a tensor.
struct Job<'a> {
    source: &'a Source,
    /// Of its bytes in memory.
    range: Range<u64>,
    /// Which of the tensors it is of.
    tensor: usize,
}

impl Job<'_> {
    fn in_file(&self) -> Option<Range<u64>> {
        let stored = self.source.stored(&self.range);
        self.source.tensor.in_file(stored)
    }
}

/// Memory that the kernel writes to, and the piece that it is read for.
struct Slot<'a> {
    job: Option<(Job<'a>, Range<u64>)>,
    memory: Aligned,
}

/// The ring and its memory. Nothing of it is let go of while the kernel may still write to it, whatever happens meanwhile.
struct Ring<'a> {
    ring: IoUring,
    slots: Vec<Slot<'a>>,
    in_flight: usize,
}

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            match self.ring.submit_and_wait(1) {
                Ok(_) => self.in_flight -= self.ring.completion().count().min(self.in_flight),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // Better lost than written to when it is another's.
                Err(_) => return std::mem::forget(std::mem::take(&mut self.slots)),
            }
        }
    }
}

pub(super) fn carry(
    sources: &[Source],
    fills: &mut [&mut dyn Fill],
    depth: usize,
    staging: Staging,
) -> Result<(), Error> {
    let ring = IoUring::new(depth as u32).map_err(|error| Error::NoUring {
        reason: error.to_string(),
    })?;
    let mut files: HashMap<Arc<Path>, File> = HashMap::new();
    for source in sources {
        let path = &source.tensor.file;
        if !files.contains_key(path) {
            files.insert(path.clone(), checkpoint::open(path, Access::Direct)?);
        }
    }
    // Whole blocks around a piece must fit a slot.
    let slot_bytes = staging.share_bytes(depth);
    let jobs = || {
        sources.iter().enumerate().flat_map(|(tensor, source)| {
            let (from, into) = (source.cast.bytes_from(), source.cast.bytes_into());
            let most = (slot_bytes - 2 * BLOCK) / from.max(into) * into;
            let pieces = source.pieces(most);
            pieces.map(move |range| Job {
                source,
                range,
                tensor,
            })
        })
    };
    // What does not lie in a row is read through the page cache, by this thread.
    let mut reader = PieceReader::new(Access::Buffered);
    for job in jobs().filter(|job| job.in_file().is_none()) {
        let (source, range) = (job.source, job.range.clone());
        fill(&mut *fills[job.tensor], &job.range, staging, |piece| {
            reader.read(source, range, piece)
        })?;
    }
    let mut jobs = jobs().filter_map(|job| {
        let in_file = job.in_file()?;
        Some((job, in_file))
    });
    let slot = |_| Slot {
        job: None,
        memory: Aligned::new(slot_bytes),
    };
    let mut ring = Ring {
        ring,
        slots: (0..depth).map(slot).collect(),
        in_flight: 0,
    };
    for at in 0..depth {
        if let Some(job) = jobs.next() {
            ring.start(at, job, &files);
        }
    }
    while ring.in_flight > 0 {
        match ring.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(Error::NoUring {
                    reason: error.to_string(),
                });
            }
        }
        let completion = ring.ring.completion();
        let done: Vec<_> = completion
            .map(|entry| (entry.user_data() as usize, entry.result()))
            .collect();
        // All of them have ended, whatever becomes of the first.
        ring.in_flight -= done.len();
        for (at, result) in done {
            ring.deliver(at, result, fills, staging)?;
            if let Some(job) = jobs.next() {
                ring.start(at, job, &files);
            }
        }
    }
    Ok(())
}

impl<'a> Ring<'a> {
    /// Queues a read of the blocks around a piece into slot `at`, which is free.
    fn start(
        &mut self,
        at: usize,
        (job, in_file): (Job<'a>, Range<u64>),
        files: &HashMap<Arc<Path>, File>,
    ) {
        let around = blocks(in_file.clone());
        let file = types::Fd(files[&job.source.tensor.file].as_raw_fd());
        let slot = &mut self.slots[at];
        let memory = slot.memory.memory();
        let length = (around.end - around.start) as u32;
        assert!(
            length as usize <= memory.len() && slot.job.is_none(),
            "a slot holds the blocks of one piece"
        );
        let entry = opcode::Read::new(file, memory.as_mut_ptr(), length)
            .offset(around.start)
            .build()
            .user_data(at as u64);
        slot.job = Some((job, in_file));
        // SAFETY: the slot's memory lives, and is touched by nobody, until the read has ended: the ring waits for it, also when
        // it is dropped; a file is closed after the kernel has taken its own reference to it.
        unsafe { self.ring.submission().push(&entry) }
            .expect("the queue has an entry for each slot");
        self.in_flight += 1;
    }

    /// Takes a piece out of its slot to where it belongs.
    fn deliver(
        &mut self,
        at: usize,
        result: i32,
        fills: &mut [&mut dyn Fill],
        staging: Staging,
    ) -> Result<(), Error> {
        let slot = &mut self.slots[at];
        let (job, in_file) = slot.job.take().expect("a read has a piece");
        let skip = (in_file.start - blocks(in_file.clone()).start) as usize;
        let bytes = (in_file.end - in_file.start) as usize;
        let failed = |answer: std::io::Error| {
            Error::Checkpoint(checkpoint::Error::Io {
                path: job.source.tensor.file.to_path_buf(),
                action: "read a tensor",
                answer,
            })
        };
        if result < 0 {
            return Err(failed(std::io::Error::from_raw_os_error(-result)));
        }
        if (result as usize) < skip + bytes {
            // A file ends so; anything else a disk reads in one go.
            return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let read = &slot.memory.memory()[skip..skip + bytes];
        fill(&mut *fills[job.tensor], &job.range, staging, |piece| {
            super::cast(job.source, read, piece)
        })
    }
}

/// Has a piece written where it belongs.
fn fill(
    fill: &mut dyn Fill,
    range: &Range<u64>,
    staging: Staging,
    write: impl FnOnce(&mut [u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let (start, end) = (range.start as usize, range.end as usize);
    if let Some(memory) = fill.memory() {
        return write(&mut memory[start..end]);
    }
    let mut piece = fill.staging(end - start, staging);
    write(&mut piece)?;
    fill.write(range.start, piece)
}

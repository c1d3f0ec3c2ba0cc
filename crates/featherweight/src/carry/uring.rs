//! One thread, and reads in flight through io_uring.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use checkpoint::{Access, Aligned, blocks};
use io_uring::{IoUring, opcode, types};

use super::ahead::Ahead;
use super::{PieceReader, Source, in_place};
use crate::Error;
use crate::place::{Fill, Staging};

const BLOCK: usize = 4096;

/// A piece of a tensor that is written there as it has arrived.
struct Piece<'a> {
    source: &'a Source,
    /// Of its bytes in memory.
    range: Range<u64>,
    /// Which of the tensors it is of.
    tensor: usize,
}

/// What is read at once, of one file, and where to.
trait Job {
    fn file(&self) -> &Arc<Path>;

    /// Where it lies in the file; `None` where it is not together there.
    fn in_file(&self) -> Option<Range<u64>>;
}

impl Job for Piece<'_> {
    fn file(&self) -> &Arc<Path> {
        &self.source.tensor.file
    }

    fn in_file(&self) -> Option<Range<u64>> {
        let stored = self.source.stored(&self.range);
        self.source.tensor.in_file(stored)
    }
}

impl Job for in_place::Job<'_> {
    fn file(&self) -> &Arc<Path> {
        in_place::Job::file(self)
    }

    fn in_file(&self) -> Option<Range<u64>> {
        in_place::Job::in_file(self)
    }
}

/// Memory that the kernel writes to, and the piece that it is read for.
struct Slot<J> {
    job: Option<(J, Range<u64>)>,
    memory: Aligned,
}

/// The ring and its memory. Nothing of it is let go of while the kernel may still write to it, whatever happens meanwhile.
struct Ring<J> {
    ring: IoUring,
    slots: Vec<Slot<J>>,
    in_flight: usize,
}

impl<J> Drop for Ring<J> {
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
    let most = slot_bytes - 2 * BLOCK;
    let piece_bytes = |source: &Source| {
        let (from, into) = (source.cast.bytes_from(), source.cast.bytes_into());
        most / from.max(into) * into
    };
    // What is not together in the file is read through the page cache, by this thread.
    let mut reader = PieceReader::new(Access::Buffered);
    let ahead = Ahead::of(fills);
    if let Some(jobs) = in_place::jobs(sources, fills, most, piece_bytes) {
        let ring = Ring::new(ring, depth, slot_bytes);
        return ahead.during(|| {
            ring.carry(
                jobs,
                &files,
                |job| job.read(&mut reader),
                |job, read| job.place(read),
            )
        });
    }
    let jobs = sources.iter().enumerate().flat_map(|(tensor, source)| {
        let pieces = source.pieces(piece_bytes(source));
        pieces.map(move |range| Piece {
            source,
            range,
            tensor,
        })
    });
    let ring = Ring::new(ring, depth, slot_bytes);
    let fills = RefCell::new(fills);
    let fill = |piece: &Piece<'_>, write: &mut dyn FnMut(&mut [u8]) -> Result<(), Error>| {
        fill(
            &mut *fills.borrow_mut()[piece.tensor],
            &piece.range,
            staging,
            write,
        )
    };
    ring.carry(
        jobs,
        &files,
        |job| {
            fill(&job, &mut |to| {
                reader.read(job.source, job.range.clone(), to)
            })
        },
        |job, read| fill(&job, &mut |to| super::cast(job.source, read, to)),
    )
}

impl<J: Job> Ring<J> {
    fn new(ring: IoUring, depth: usize, slot_bytes: usize) -> Ring<J> {
        let slot = |_| Slot {
            job: None,
            memory: Aligned::new(slot_bytes),
        };
        Ring {
            ring,
            slots: (0..depth).map(slot).collect(),
            in_flight: 0,
        }
    }

    /// Has everything read: what is together in the file by the ring.
    fn carry(
        mut self,
        jobs: impl Iterator<Item = J>,
        files: &HashMap<Arc<Path>, File>,
        mut gather: impl FnMut(J) -> Result<(), Error>,
        mut place: impl FnMut(J, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut jobs = jobs;
        let mut next = || -> Result<_, Error> {
            for job in jobs.by_ref() {
                match job.in_file() {
                    Some(in_file) => return Ok(Some((job, in_file))),
                    None => gather(job)?,
                }
            }
            Ok(None)
        };
        for at in 0..self.slots.len() {
            if let Some(job) = next()? {
                self.start(at, job, files);
            }
        }
        while self.in_flight > 0 {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(Error::NoUring {
                        reason: error.to_string(),
                    });
                }
            }
            let completion = self.ring.completion();
            let done: Vec<_> = completion
                .map(|entry| (entry.user_data() as usize, entry.result()))
                .collect();
            // All of them have ended, whatever becomes of the first.
            self.in_flight -= done.len();
            for (at, result) in done {
                self.deliver(at, result, &mut place)?;
                if let Some(job) = next()? {
                    self.start(at, job, files);
                }
            }
        }
        Ok(())
    }

    /// Queues a read of the blocks around a piece into slot `at`, which is free.
    fn start(
        &mut self,
        at: usize,
        (job, in_file): (J, Range<u64>),
        files: &HashMap<Arc<Path>, File>,
    ) {
        let around = blocks(in_file.clone());
        let file = types::Fd(files[job.file()].as_raw_fd());
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
        place: &mut impl FnMut(J, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let slot = &mut self.slots[at];
        let (job, in_file) = slot.job.take().expect("a read has a piece");
        let skip = (in_file.start - blocks(in_file.clone()).start) as usize;
        let bytes = (in_file.end - in_file.start) as usize;
        let failed = |answer: std::io::Error| {
            Error::Checkpoint(checkpoint::Error::Io {
                path: job.file().to_path_buf(),
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
        place(job, read)
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

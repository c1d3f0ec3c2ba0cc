//! One thread, and reads in flight through io_uring.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use checkpoint::{Access, Aligned, blocks};
use io_uring::{IoUring, opcode, types};
use lab::{Error, Filling, Platform, Run};

use crate::jobs::{ALIGNED_BYTES, Job, Source, cut};

/// A read in flight: its piece, and the aligned memory that the kernel writes to.
struct Slot<'a> {
    job: Option<Job<'a>>,
    memory: Aligned,
}

/// Reads every source into its filling, past the page cache.
pub fn read<B: Platform>(
    run: &Run<B>,
    sources: &[Source<'_>],
    fillings: &mut [B::Filling],
) -> Result<(), Error> {
    let depth = run.tuning.queue_depth.clamp(1, 1024);
    let mut ring = IoUring::new(depth as u32).map_err(|error| Error::Unsupported {
        device: format!("{:?}", run.device),
        reason: format!("the kernel refuses io_uring here: {error}"),
    })?;
    let mut files: HashMap<Arc<Path>, File> = HashMap::new();
    for (tensor, _) in sources {
        let path = &tensor.file;
        if !files.contains_key(path) {
            files.insert(path.clone(), checkpoint::open(path, Access::Direct)?);
        }
    }
    // Whole blocks around a piece must fit a slot.
    let aligned_bytes = ALIGNED_BYTES
        .min(run.tuning.piece_bytes() as u64)
        .max(3 * 4096);
    let piece_bytes = (aligned_bytes - 2 * 4096) as usize;
    let (mut jobs, gathered): (Vec<_>, Vec<_>) =
        cut(sources, piece_bytes).partition(|job| job.tensor.is_contiguous());
    gather(run, gathered, fillings)?;
    let mut jobs = jobs.drain(..);
    let mut slots: Vec<Slot> = (0..depth)
        .map(|_| Slot {
            job: None,
            memory: Aligned::new(aligned_bytes as usize),
        })
        .collect();

    let mut in_flight = 0;
    for at in 0..depth {
        in_flight += usize::from(start(&mut ring, &mut slots, at, jobs.next(), &files));
    }
    let result = (|| {
        while in_flight > 0 {
            let waited = ring.submit_and_wait(1);
            waited.map_err(|error| Error::Setup(format!("io_uring: {error}")))?;
            let done: Vec<_> = ring
                .completion()
                .map(|entry| (entry.user_data() as usize, entry.result()))
                .collect();
            for (at, result) in done {
                in_flight -= 1;
                deliver(run, &mut slots[at], result, fillings)?;
                in_flight += usize::from(start(&mut ring, &mut slots, at, jobs.next(), &files));
            }
        }
        Ok(())
    })();
    // Nothing is let go of while the kernel may still write to it.
    while in_flight > 0 && ring.submit_and_wait(1).is_ok() {
        in_flight -= ring.completion().count().min(in_flight);
    }
    if in_flight > 0 {
        std::mem::forget(slots);
    }
    result
}

/// Queues a read of the blocks around a piece into slot `at`. Says whether there was a piece.
fn start<'a>(
    ring: &mut IoUring,
    slots: &mut [Slot<'a>],
    at: usize,
    job: Option<Job<'a>>,
    files: &HashMap<Arc<Path>, File>,
) -> bool {
    let Some(job) = job else { return false };
    let around = blocks(in_file(&job));
    let file = types::Fd(files[&job.tensor.file].as_raw_fd());
    let slot = &mut slots[at];
    let memory = slot.memory.memory();
    let length = (around.end - around.start) as u32;
    assert!(
        length as usize <= memory.len(),
        "a slot holds a piece's blocks"
    );
    let entry = opcode::Read::new(file, memory.as_mut_ptr(), length)
        .offset(around.start)
        .build()
        .user_data(at as u64);
    slot.job = Some(job);
    // SAFETY: file and memory outlive the read: slots are freed when none is in flight, and each has one at a time.
    unsafe { ring.submission().push(&entry) }.expect("the queue has an entry for each slot");
    true
}

/// Takes a piece out of its slot to where it belongs.
fn deliver<B: Platform>(
    run: &Run<B>,
    slot: &mut Slot<'_>,
    result: i32,
    fillings: &mut [B::Filling],
) -> Result<(), Error> {
    let job = slot.job.take().expect("a read has a piece");
    let range = in_file(&job);
    let around = blocks(range.clone());
    let skip = (range.start - around.start) as usize;
    let bytes = (job.range.end - job.range.start) as usize;
    let failed = |error: std::io::Error| Error::file(&job.tensor.file, &error);
    if result < 0 {
        return Err(failed(std::io::Error::from_raw_os_error(-result)));
    }
    if (result as usize) < skip + bytes {
        // A file ends so; anything else a disk reads in one go.
        return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
    }
    let read = &slot.memory.memory()[skip..skip + bytes];
    fill(run, &job, &mut fillings[job.filling], |piece| {
        piece.copy_from_slice(read);
        Ok(())
    })
}

/// What does not lie in a row is read through the page cache, by this thread.
fn gather<B: Platform>(
    run: &Run<B>,
    jobs: Vec<Job<'_>>,
    fillings: &mut [B::Filling],
) -> Result<(), Error> {
    let mut reader = run.reader();
    jobs.iter().try_for_each(|job| {
        fill(run, job, &mut fillings[job.filling], |piece| {
            Ok(reader.read(job.tensor, job.range.start, piece)?)
        })
    })
}

/// Has a piece written where it belongs.
fn fill<B: Platform>(
    run: &Run<B>,
    job: &Job<'_>,
    filling: &mut B::Filling,
    write: impl FnOnce(&mut [u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let bytes = (job.range.end - job.range.start) as usize;
    if let Some(memory) = filling.memory() {
        return write(&mut memory[job.place as usize..][..bytes]);
    }
    let mut piece = B::staging_buffer(&run.device, bytes);
    write(&mut piece)?;
    filling.write(job.place, piece)
}

fn in_file(job: &Job<'_>) -> Range<u64> {
    let range = job.tensor.in_file(job.range.clone());
    range.expect("other jobs are gathered")
}

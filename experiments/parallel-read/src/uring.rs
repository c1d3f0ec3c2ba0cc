//! One thread, and reads in flight through io_uring.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use checkpoint::{Access, Aligned, blocks};
use io_uring::{IoUring, opcode, types};
use lab::{Error, Filling, Platform, Run};

use crate::jobs::{ALIGNED_BYTES, Job, Source, cut};

/// A read in flight: its piece, and the aligned memory that the kernel writes to.
struct Slot {
    job: Option<Job>,
    memory: Aligned,
}

/// Reads every source into its filling, past the page cache.
pub fn read<B: Platform>(
    run: &Run<B>,
    sources: &[Source],
    fillings: &mut [B::Filling],
) -> Result<(), Error> {
    let depth = run.tuning.queue_depth.clamp(1, 1024);
    let mut ring = IoUring::new(depth as u32).map_err(|error| Error::Unsupported {
        device: format!("{:?}", run.device),
        reason: format!("the kernel refuses io_uring here: {error}"),
    })?;
    let mut files: HashMap<Arc<Path>, File> = HashMap::new();
    for (path, _) in sources {
        if !files.contains_key(path) {
            files.insert(path.clone(), checkpoint::open(path, Access::Direct)?);
        }
    }
    // Whole blocks around a piece must fit a slot.
    let aligned_bytes = ALIGNED_BYTES
        .min(run.tuning.piece_bytes() as u64)
        .max(3 * 4096);
    let piece_bytes = (aligned_bytes - 2 * 4096) as usize;
    let mut jobs = cut(sources, piece_bytes);
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
fn start(
    ring: &mut IoUring,
    slots: &mut [Slot],
    at: usize,
    job: Option<Job>,
    files: &HashMap<Arc<Path>, File>,
) -> bool {
    let Some(job) = job else { return false };
    let around = blocks(job.range.clone());
    let file = types::Fd(files[&job.file].as_raw_fd());
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
    slot: &mut Slot,
    result: i32,
    fillings: &mut [B::Filling],
) -> Result<(), Error> {
    let job = slot.job.take().expect("a read has a piece");
    let around = blocks(job.range.clone());
    let skip = (job.range.start - around.start) as usize;
    let bytes = (job.range.end - job.range.start) as usize;
    let failed = |error: std::io::Error| Error::file(&job.file, &error);
    if result < 0 {
        return Err(failed(std::io::Error::from_raw_os_error(-result)));
    }
    if (result as usize) < skip + bytes {
        // A file ends so; anything else a disk reads in one go.
        return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
    }
    let read = &slot.memory.memory()[skip..skip + bytes];
    let filling = &mut fillings[job.filling];
    match filling.memory() {
        Some(memory) => memory[job.place as usize..][..bytes].copy_from_slice(read),
        None => {
            let mut piece = B::staging_buffer(&run.device, bytes);
            piece.copy_from_slice(read);
            filling.write(job.place, piece)?;
        }
    }
    Ok(())
}

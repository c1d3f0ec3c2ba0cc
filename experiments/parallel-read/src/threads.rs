//! Threads that take the next piece that nobody has.

use std::sync::{Mutex, mpsc};

use checkpoint::{Access, Reader};
use lab::{Error, Filling, Platform, Run};

use crate::jobs::{Job, Source, cut};

/// Reads every source into its filling.
pub fn read<B: Platform>(
    run: &Run<B>,
    sources: &[Source<'_>],
    fillings: &mut [B::Filling],
    access: Access,
) -> Result<(), Error> {
    // A read past the cache waits for the disk and takes no CPU: as many threads as reads are to be in flight.
    let threads = match access {
        Access::Buffered => run.tuning.threads,
        Access::Direct => run.tuning.queue_depth,
    };
    let memories: Option<Vec<&mut [u8]>> = fillings.iter_mut().map(Filling::memory).collect();
    match memories {
        Some(memories) => in_place(
            sources,
            memories,
            run.tuning.piece_bytes().min(4 << 20),
            threads.max(1),
            access,
        ),
        None => through_ring(run, sources, fillings, threads.max(1), access),
    }
}

/// Straight into the parameters' own memory.
fn in_place(
    sources: &[Source<'_>],
    memories: Vec<&mut [u8]>,
    piece_bytes: usize,
    threads: usize,
    access: Access,
) -> Result<(), Error> {
    let each = memories.into_iter().zip(sources);
    let pieces =
        each.flat_map(|(memory, (tensor, _))| memory.chunks_mut(tensor.piece_bytes(piece_bytes)));
    let jobs = Mutex::new(cut(sources, piece_bytes).zip(pieces));
    let work = || {
        let mut reader = Reader::new(access);
        loop {
            let next = jobs.lock().expect("no thread panics").next();
            let Some((job, memory)) = next else {
                return Ok(());
            };
            reader.read(job.tensor, job.range.start, memory)?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no thread panics"))
    })
}

/// Into pieces of a ring; the loading thread, whose stream the device knows, sends each on as it is read.
fn through_ring<'a, B: Platform>(
    run: &Run<B>,
    sources: &'a [Source<'a>],
    fillings: &mut [B::Filling],
    threads: usize,
    access: Access,
) -> Result<(), Error> {
    let depth = run.tuning.queue_depth.max(threads).max(1);
    let piece_bytes = (run.tuning.staging_bytes as usize / depth / 4096 * 4096).max(4096);
    let mut jobs = cut(sources, piece_bytes);
    let (to_read, next) = mpsc::channel::<(Job<'a>, burn::tensor::Bytes)>();
    let next = Mutex::new(next);
    let (read, arrived) = mpsc::channel();
    let work = |read: mpsc::Sender<_>| {
        let mut reader = Reader::new(access);
        loop {
            let job = next.lock().expect("no thread panics").recv();
            // Ends when the loading thread has no more pieces, or has given up.
            let Ok((job, mut piece)) = job else { return };
            let result = reader.read(job.tensor, job.range.start, &mut piece);
            if read.send(result.map(|()| (job, piece))).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let read = read.clone();
            scope.spawn(|| work(read));
        }
        let start = |job: Job<'a>| {
            let bytes = (job.range.end - job.range.start) as usize;
            let piece = B::staging_buffer(&run.device, bytes);
            to_read.send((job, piece)).expect("the threads are there");
        };
        let mut in_flight = 0;
        for job in jobs.by_ref().take(depth) {
            start(job);
            in_flight += 1;
        }
        let mut result = Ok(());
        while in_flight > 0 {
            let (job, piece) = match arrived.recv().expect("the threads are there") {
                Ok(arrived) => arrived,
                Err(error) => {
                    result = Err(error.into());
                    break;
                }
            };
            in_flight -= 1;
            if let Err(error) = fillings[job.filling].write(job.place, piece) {
                result = Err(error);
                break;
            }
            if let Some(job) = jobs.next() {
                start(job);
                in_flight += 1;
            }
        }
        drop(to_read);
        result
    })
}

//! Threads that take the next piece that nobody has.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError, mpsc};

use burn::tensor::Bytes;
use checkpoint::{Access, Reader};

use super::{PieceReader, Source, in_place};
use crate::Error;
use crate::place::{Fill, Staging};

pub(super) fn carry(
    sources: &[Source],
    fills: &mut [&mut dyn Fill],
    threads: usize,
    access: Access,
    staging: Staging,
) -> Result<(), Error> {
    let buffer_bytes = staging.share_bytes(threads);
    let panel_bytes = Reader::panel_bytes(access, buffer_bytes);
    if let Some(jobs) = in_place::jobs(sources, fills, panel_bytes, |_| in_place::PIECE_BYTES) {
        let reader = || PieceReader::with_buffer(access, buffer_bytes);
        return straight(jobs, threads, reader);
    }
    through_ring(sources, fills, threads, access, staging)
}

/// A panic is an error to whoever waits for the thread.
fn caught<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Error::Panicked(
            message.unwrap_or_else(|| "without saying why".to_owned()),
        ))
    })
}

/// Straight into the tensors' own memory.
fn straight<'a>(
    jobs: impl Iterator<Item = in_place::Job<'a>> + Send,
    threads: usize,
    reader: impl Fn() -> PieceReader + Sync,
) -> Result<(), Error> {
    let jobs = Mutex::new(jobs);
    let work = || {
        let mut reader = reader();
        loop {
            let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(job) = next else {
                return Ok(());
            };
            if let Err(error) = job.read(&mut reader) {
                // Nobody begins another piece of what has failed.
                let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
                jobs.by_ref().for_each(drop);
                return Err(error);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| caught(&work)))
            .collect();
        // All of them have ended then, whatever the first says.
        let ended: Vec<Result<(), Error>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| caught(|| panic!("twice"))))
            .collect();
        ended.into_iter().collect()
    })
}

/// A piece of a tensor.
struct Job<'a> {
    source: &'a Source,
    range: Range<u64>,
    /// Which of the tensors it is of.
    tensor: usize,
}

/// Into pieces of a ring; the loading thread, whose stream the device knows, sends each on as it is read.
fn through_ring(
    sources: &[Source],
    fills: &mut [&mut dyn Fill],
    threads: usize,
    access: Access,
    staging: Staging,
) -> Result<(), Error> {
    let mut jobs = sources.iter().enumerate().flat_map(|(tensor, source)| {
        let pieces = source.pieces(staging.piece_bytes());
        pieces.map(move |range| Job {
            source,
            range,
            tensor,
        })
    });
    let (to_read, next) = mpsc::channel::<(Job<'_>, Bytes)>();
    let next = Mutex::new(next);
    let (read, arrived) = mpsc::channel();
    let work = |read: mpsc::Sender<_>| {
        let mut reader = PieceReader::with_buffer(access, staging.share_bytes(threads));
        loop {
            let job = next.lock().unwrap_or_else(PoisonError::into_inner).recv();
            // Ends when the loading thread has no more pieces, or has given up.
            let Ok((job, mut piece)) = job else { return };
            let result = caught(|| reader.read(job.source, job.range.clone(), &mut piece));
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
        drop(read);
        let mut in_flight = 0;
        let mut result = Ok(());
        loop {
            while in_flight < Staging::PIECES {
                let Some(job) = jobs.next() else { break };
                let bytes = (job.range.end - job.range.start) as usize;
                let piece = fills[job.tensor].staging(bytes, staging);
                if to_read.send((job, piece)).is_err() {
                    break;
                }
                in_flight += 1;
            }
            if in_flight == 0 {
                break;
            }
            // Each thread answers for each piece, whatever happens over it.
            let one = match arrived.recv() {
                Ok(one) => one,
                Err(_) => Err(Error::Panicked("without saying why".to_owned())),
            };
            in_flight -= 1;
            let written =
                one.and_then(|(job, piece)| fills[job.tensor].write(job.range.start, piece));
            if written.is_err() {
                result = written;
                break;
            }
        }
        drop(to_read);
        result
    })
}

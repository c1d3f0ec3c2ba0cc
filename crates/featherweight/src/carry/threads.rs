//! Threads that take the next piece that nobody has.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError, mpsc};

use checkpoint::Access;

use super::{Piece, PieceReader, Source, in_place};
use crate::Error;
use crate::place::{Fill, Staging};

pub(super) fn carry(
    sources: &[Source],
    fills: &mut [&mut dyn Fill],
    threads: usize,
    access: Access,
    staging: Staging,
) -> Result<(), Error> {
    let reader = |_| PieceReader::with_buffer(access, staging.share_bytes(threads));
    let readers: Vec<PieceReader> = (0..threads).map(reader).collect();
    let panel_bytes = readers[0].reader.panel_bytes();
    if let Some(jobs) = in_place::jobs(sources, fills, panel_bytes, |_| in_place::PIECE_BYTES) {
        return straight(jobs, readers);
    }
    through_ring(sources, fills, readers, staging)
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
    readers: Vec<PieceReader>,
) -> Result<(), Error> {
    let jobs = Mutex::new(jobs);
    let work = |mut reader: PieceReader| {
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
        let work = &work;
        let threads: Vec<_> = readers
            .into_iter()
            .map(|reader| scope.spawn(move || caught(|| work(reader))))
            .collect();
        // All of them have ended then, whatever the first says.
        let ended: Vec<Result<(), Error>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| caught(|| panic!("twice"))))
            .collect();
        ended.into_iter().collect()
    })
}

/// Pieces of a tensor that are read together.
struct Job<'a> {
    source: &'a Source,
    ranges: Vec<Range<u64>>,
    /// Which of the tensors they are of.
    tensor: usize,
}

/// Into pieces of a ring; the loading thread, whose stream the device knows, sends each on as it is read.
fn through_ring(
    sources: &[Source],
    fills: &mut [&mut dyn Fill],
    readers: Vec<PieceReader>,
    staging: Staging,
) -> Result<(), Error> {
    let jobs = sources.iter().enumerate().flat_map(|(tensor, source)| {
        let pieces = source.read_together(staging);
        pieces.map(move |ranges| Job {
            source,
            ranges,
            tensor,
        })
    });
    let mut jobs = jobs.peekable();
    let (to_read, next) = mpsc::channel::<(Job<'_>, Vec<Piece>)>();
    let next = Mutex::new(next);
    let (read, arrived) = mpsc::channel();
    let work = |mut reader: PieceReader, read: mpsc::Sender<_>| {
        loop {
            let job = next.lock().unwrap_or_else(PoisonError::into_inner).recv();
            // Ends when the loading thread has no more pieces, or has given up.
            let Ok((job, mut pieces)) = job else { return };
            let result = caught(|| reader.read_pieces(job.source, &mut pieces));
            if read.send(result.map(|()| (job.tensor, pieces))).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        let work = &work;
        for reader in readers {
            let read = read.clone();
            scope.spawn(move || work(reader, read));
        }
        drop(read);
        let mut in_flight = 0;
        let mut result = Ok(());
        loop {
            let has_room =
                |job: &Job<'_>| in_flight == 0 || in_flight + job.ranges.len() <= Staging::PIECES;
            if let Some(job) = jobs.next_if(has_room) {
                let piece = |range: &Range<u64>| Piece {
                    range: range.clone(),
                    memory: fills[job.tensor].staging((range.end - range.start) as usize, staging),
                };
                let pieces: Vec<Piece> = job.ranges.iter().map(piece).collect();
                in_flight += pieces.len();
                if to_read.send((job, pieces)).is_ok() {
                    continue;
                }
            }
            if in_flight == 0 {
                break;
            }
            // Each thread answers for each job, whatever happens over it.
            let read = match arrived.recv() {
                Ok(read) => read,
                Err(_) => Err(Error::Panicked("without saying why".to_owned())),
            };
            let written = read.and_then(|(tensor, pieces)| {
                in_flight -= pieces.len();
                let mut pieces = pieces.into_iter();
                pieces.try_for_each(|Piece { range, memory }| {
                    fills[tensor].write(range.start, memory)
                })
            });
            if written.is_err() {
                result = written;
                break;
            }
        }
        drop(to_read);
        result
    })
}

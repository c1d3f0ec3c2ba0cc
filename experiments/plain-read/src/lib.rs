//! Yardsticks to hold techniques against: the bytes of a load moved by the plainest means, and no model.
//!
//! - `plain-read`: one thread reads the checkpoint into fresh memory that nobody has touched. No bound: several threads are faster.
//! - `plain-read:parallel`: several threads read it from front to back into fresh huge pages, piece by piece. A private copy of the
//!   model is hardly made faster: this is the floor of techniques that make one.
//! - `plain-read:direct`: several threads read the checkpoint past the page cache, each into a small buffer of its own.
//! - `plain-read:upload`: buffers of the parameters' sizes are created on the device and written from one small buffer, through
//!   the driver's own interface.

use std::io::{ErrorKind, Read};
use std::sync::Mutex;

use burn::tensor::DType;
use checkpoint::{Access, Aligned};
use gpt2::Gpt2;
use lab::{
    Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Run, Target, Tunable,
    Variant,
};

/// See the crate's documentation.
pub struct PlainRead;

const PARALLEL: &str = "plain-read:parallel";
const DIRECT: &str = "plain-read:direct";
const UPLOAD: &str = "plain-read:upload";

impl Experiment for PlainRead {
    const NAME: &'static str = "plain-read";
    const SUMMARY: &'static str =
        "a yardstick, no technique: one thread reads the file into fresh memory with plain reads";
    const VARIANTS: &'static [Variant] = &[
        Variant {
            name: PARALLEL,
            summary: "a yardstick, no technique: several threads read the file into fresh huge pages",
        },
        Variant {
            name: DIRECT,
            summary: "a yardstick, no technique: several threads read the file past the page cache",
        },
        Variant {
            name: UPLOAD,
            summary: "a yardstick, no technique: buffers are created and written through the driver alone",
        },
    ];
    const TUNED_BY: &'static [Tunable] = &[Tunable::Staging, Tunable::Threads, Tunable::QueueDepth];
    const IS_YARDSTICK: bool = true;

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        match memory {
            MemoryModel::Unified => {
                Contract::unified(size.model_bytes + 4 * size.tuning.staging_bytes)
            }
            // Its buffers are the driver's own, and not counted.
            MemoryModel::Discrete => Contract::discrete(2 * size.tuning.staging_bytes, 0),
        }
    }

    fn applies(target: Target) -> Result<(), &'static str> {
        match (target.variant, target.memory) {
            (UPLOAD, MemoryModel::Unified) => Err("there is nothing to upload to"),
            (UPLOAD, MemoryModel::Discrete) | (_, MemoryModel::Unified) => Ok(()),
            (_, MemoryModel::Discrete) => Err("it has nothing to do with a device: see flex"),
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        run.enter(Phase::Read);
        match run.variant {
            PARALLEL => read_in_parallel(run)?,
            DIRECT => read_past_the_cache(run)?,
            UPLOAD => upload(run)?,
            _ => read_all(run)?,
        }
        Ok(run.lazy_model())
    }
}

/// One thread, a file, and memory that it fills from front to back.
fn read_all<B: Platform>(run: &Run<B>) -> Result<(), Error> {
    let path = run.checkpoint_path();
    let failed = |error| Error::file(path, &error);
    let mut file = checkpoint::open(path, Access::Buffered)?;
    let bytes = file.metadata().map_err(failed)?.len() as usize;
    let mut memory = vec![0u8; bytes];
    for piece in memory.chunks_mut(run.tuning.piece_bytes()) {
        file.read_exact(piece).map_err(failed)?;
    }
    // A load keeps what it has read: giving the memory back is no part of it.
    std::mem::forget(std::hint::black_box(memory));
    Ok(())
}

/// What one read of several threads fetches: long enough that beginning it costs nothing, short enough that none is idle at the end.
const PARALLEL_PIECE_BYTES: usize = 4 << 20;

/// Several threads, a file, and huge pages that each fills a piece of at a time.
fn read_in_parallel<B: Platform>(run: &Run<B>) -> Result<(), Error> {
    let path = run.checkpoint_path();
    let failed = |error| Error::file(path, &error);
    let file = checkpoint::open(path, Access::Buffered)?;
    let bytes = file.metadata().map_err(failed)?.len() as usize;
    let mut memory = run.place.begin(&[bytes], DType::U8)?;
    let all = memory.fill().memory();
    let all = all.expect("it applies where tensors are in the host's memory");
    let pieces = Mutex::new(all.chunks_mut(PARALLEL_PIECE_BYTES).enumerate());
    std::thread::scope(|scope| {
        let read = || -> std::io::Result<()> {
            loop {
                let next = pieces.lock().expect("no thread panics").next();
                let Some((number, piece)) = next else {
                    return Ok(());
                };
                let mut filled = 0;
                while filled < piece.len() {
                    let offset = (number * PARALLEL_PIECE_BYTES + filled) as u64;
                    match checkpoint::read_at(&file, &mut piece[filled..], offset)? {
                        0 => return Err(ErrorKind::UnexpectedEof.into()),
                        read => filled += read,
                    }
                }
            }
        };
        let threads: Vec<_> = (0..run.tuning.threads.max(1))
            .map(|_| scope.spawn(read))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no thread panics"))
    })
    .map_err(failed)?;
    // As above.
    std::mem::forget(std::hint::black_box(memory));
    Ok(())
}

/// As many threads as reads are to be in flight; each reads the next piece that nobody has into a buffer of its own.
fn read_past_the_cache<B: Platform>(run: &Run<B>) -> Result<(), Error> {
    let path = run.checkpoint_path();
    let file = checkpoint::open(path, Access::Direct)?;
    let bytes = file
        .metadata()
        .map_err(|error| Error::file(path, &error))?
        .len();
    let step = run.tuning.piece_bytes().min(4 << 20);
    let offsets = Mutex::new((0..bytes).step_by(step));
    std::thread::scope(|scope| {
        let read = || -> std::io::Result<()> {
            let mut buffer = Aligned::new(step);
            loop {
                let next = offsets.lock().expect("no thread panics").next();
                let Some(offset) = next else { return Ok(()) };
                let wanted = (bytes - offset).min(step as u64) as usize;
                let mut filled = 0;
                while filled < wanted {
                    match checkpoint::read_at(
                        &file,
                        &mut buffer.memory()[filled..],
                        offset + filled as u64,
                    )? {
                        0 => return Err(ErrorKind::UnexpectedEof.into()),
                        read => filled += read,
                    }
                }
            }
        };
        let threads: Vec<_> = (0..run.tuning.queue_depth.max(1))
            .map(|_| scope.spawn(read))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no thread panics"))
    })
    .map_err(|error| Error::file(path, &error))
}

fn upload<B: Platform>(run: &Run<B>) -> Result<(), Error> {
    run.enter(Phase::Upload);
    let mut model = run.lazy_model();
    let parameters = model.tensors_mut(&run.config);
    let shards = parameters.iter().flat_map(|parameter| &parameter.shards);
    let bytes =
        shards.map(|shard| shard.shape().iter().product::<usize>() as u64 * run.dtype.bytes());
    let bytes: Vec<u64> = bytes.collect();
    B::bare_upload(&run.device, &bytes, run.tuning.piece_bytes()).unwrap_or_else(|| {
        Err(Error::Unsupported {
            device: format!("{:?}", run.device),
            reason: "nobody has written a plain upload for its driver".to_owned(),
        })
    })
}

//! Several positioned reads in flight at once. What a private copy pays for is the first touch of its memory, page by page:
//! two threads pay for it at the same time.
//!
//! ```text
//!  unified    file ══reads══▶ parameters         no buffer between them (but for direct I/O, which needs aligned ones)
//!  discrete   file ══reads══▶ ring of pieces ──▶ parameters         all pieces together: the staging buffer
//! ```
//!
//! Variants: `direct` goes past the page cache (for a file that is not in it), `uring` does so without a thread for each
//! read, through io_uring. They are the library's, in `crates/featherweight/src/carry`.

use gpt2::Gpt2;
use lab::{Contract, Error, Experiment, Footprint, MemoryModel, Platform, Run, Tunable, Variant};

/// See the crate's documentation.
pub struct ParallelRead;

const DIRECT: &str = "parallel-read:direct";
const URING: &str = "parallel-read:uring";

impl Experiment for ParallelRead {
    const NAME: &'static str = "parallel-read";
    const SUMMARY: &'static str =
        "build without memory, read with several threads at once straight into the parameters";
    const VARIANTS: &'static [Variant] = &[
        Variant {
            name: DIRECT,
            summary: "the same past the page cache (O_DIRECT), with a thread for each read in flight",
        },
        Variant {
            name: URING,
            summary: "the same past the page cache, with one thread and io_uring",
        },
    ];
    const TUNED_BY: &'static [Tunable] = &[Tunable::Staging, Tunable::Threads, Tunable::QueueDepth];

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        // The aligned buffers of reads past the cache are together no more than the staging, beside the ring of pieces.
        let staging = size.tuning.staging_bytes;
        match memory {
            MemoryModel::Discrete => Contract::discrete(2 * staging, size.model_bytes),
            MemoryModel::Unified => Contract::unified(size.model_bytes + staging),
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        let mut model = run.lazy_model();
        let load = run.load(&mut model)?;
        let load = match run.variant {
            URING => load.uring(run.tuning.queue_depth),
            // A read past the cache waits for the disk and takes no CPU: a thread for each read in flight.
            DIRECT => load.parallel_direct(run.tuning.queue_depth),
            _ => load.parallel(run.tuning.threads),
        };
        let (model, _) = load.into(model)?;
        Ok(model)
    }
}

//! Several positioned reads in flight at once. What a private copy pays for is the first touch of its memory, page by page:
//! two threads pay for it at the same time.
//!
//! ```text
//!  unified    file ══reads══▶ parameters         no buffer between them (but for direct I/O, which needs aligned ones)
//!  discrete   file ══reads══▶ ring of pieces ──▶ parameters         all pieces together: the staging buffer
//! ```
//!
//! Variants: `direct` goes past the page cache (for a file that is not in it), `uring` does so without a thread for each
//! read, through io_uring.

mod jobs;
mod threads;
#[cfg(target_os = "linux")]
mod uring;

use gpt2::Gpt2;
use lab::{
    Contract, Error, Experiment, Filling, Footprint, MemoryModel, Phase, Platform, Run, Tunable,
    Variant,
};

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
        // Buffers for direct I/O: one for each read in flight.
        let buffers =
            size.tuning.staging_bytes + jobs::ALIGNED_BYTES * size.tuning.queue_depth as u64;
        match memory {
            MemoryModel::Discrete => Contract::discrete(2 * buffers, size.model_bytes),
            MemoryModel::Unified => Contract::unified(size.model_bytes + buffers),
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        let mut model = run.lazy_model();
        let checkpoint = run.open()?;
        let parameters = model.tensors_mut(&run.config);

        run.enter(Phase::Materialise);
        let (mut fillings, mut sources) = (Vec::new(), Vec::new());
        for parameter in &parameters {
            let tensor = checkpoint.tensor(&parameter.spec.name, &parameter.spec.shape)?;
            for shard in &parameter.shards {
                let range = tensor.rows(shard.rows.clone());
                let elements = (range.end - range.start) / tensor.dtype.bytes();
                fillings.push(run.begin(elements as usize)?);
                sources.push((tensor, range));
            }
        }

        run.enter(Phase::Read);
        match run.variant {
            URING => uring_or_why_not(run, &sources, &mut fillings)?,
            DIRECT => threads::read(run, &sources, &mut fillings, checkpoint::Access::Direct)?,
            _ => threads::read(run, &sources, &mut fillings, checkpoint::Access::Buffered)?,
        }

        run.enter(Phase::Assign);
        let mut tensors = fillings.into_iter().map(Filling::finish);
        for parameter in parameters {
            let own = tensors.by_ref().take(parameter.shards.len()).collect();
            parameter.assign(own);
        }
        Ok(model)
    }
}

#[cfg(target_os = "linux")]
use uring::read as uring_or_why_not;

#[cfg(not(target_os = "linux"))]
fn uring_or_why_not<B: Platform>(
    run: &Run<B>,
    _: &[jobs::Source<'_>],
    _: &mut [B::Filling],
) -> Result<(), Error> {
    Err(Error::Unsupported {
        device: format!("{:?}", run.device),
        reason: "io_uring is Linux's".to_owned(),
    })
}

//! A model of any size through one small staging buffer, straight into the parameters.
//!
//! ```text
//!  unified     file ──read──▶ parameter
//!  discrete    file ──read──▶ piece ──write──▶ parameter      the pieces of the staging buffer take turns
//! ```
//!
//! What [`Run::fill`] does is in `crates/lab/src/stream.rs`: a device buffer of exactly the parameter's size
//! is filled at offsets, past Burn's `from_data`, which would hold three times the tensor on the host.

use gpt2::Gpt2;
use lab::{Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Run, Tunable};

/// See the crate's documentation.
pub struct Streamed;

impl Experiment for Streamed {
    const NAME: &'static str = "streamed";
    const SUMMARY: &'static str =
        "build without memory, read through one small staging buffer straight into the parameters";
    const TUNED_BY: &'static [Tunable] = &[Tunable::Staging];

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        Contract::streamed(memory, size, size.model_bytes)
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        let mut model = run.lazy_model();
        let checkpoint = run.open()?;
        let parameters = model.tensors_mut(&run.config);

        // All of them first: to ask a device for memory waits for what it was given to do.
        run.enter(Phase::Materialise);
        let mut begun = Vec::new();
        for parameter in &parameters {
            for shard in &parameter.shards {
                begun.push(run.begin(shard.shape().iter().product())?);
            }
        }

        run.enter(Phase::Read);
        let mut reader = run.reader();
        let (mut begun, mut loaded) = (begun.into_iter(), Vec::new());
        for parameter in &parameters {
            let tensor = checkpoint.tensor(&parameter.spec.name, &parameter.spec.shape)?;
            let shards = parameter.shards.iter().zip(begun.by_ref());
            let filled = shards
                .map(|(shard, filling)| run.fill(&mut reader, tensor, shard.rows.clone(), filling));
            loaded.push(filled.collect::<Result<_, _>>()?);
        }

        run.enter(Phase::Assign);
        for (parameter, loaded) in parameters.into_iter().zip(loaded) {
            parameter.assign(loaded);
        }
        Ok(model)
    }
}

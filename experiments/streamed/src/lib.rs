//! A model of any size through one small staging buffer, straight into the parameters.
//!
//! ```text
//!  unified     file ──read──▶ parameter
//!  discrete    file ──read──▶ piece ──write──▶ parameter      the pieces of the staging buffer take turns
//! ```
//!
//! What [`Run::stream_tensor`] does is in `crates/lab/src/stream.rs`: a device buffer of exactly the parameter's size
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
        let mut reader = run.reader();
        for parameter in model.tensors_mut(&run.config) {
            let loaded = run.stream_tensor(&mut reader, &checkpoint, &parameter)?;
            run.enter(Phase::Assign);
            parameter.assign(loaded);
        }
        Ok(model)
    }
}

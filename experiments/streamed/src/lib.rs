//! A model of any size through one small staging buffer, straight into the parameters.
//!
//! ```text
//!  unified     file ──read──▶ parameter
//!  discrete    file ──read──▶ piece ──write──▶ parameter      the pieces of the staging buffer take turns
//! ```
//!
//! It is the library's first way, `crates/featherweight/src/carry/stream.rs`: a device buffer of exactly the parameter's size is
//! filled at offsets, past Burn's `from_data`, which would hold three times the tensor on the host.

use gpt2::Gpt2;
use lab::{Contract, Error, Experiment, Footprint, MemoryModel, Platform, Run, Tunable};

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
        let (model, _) = run.load(&mut model)?.streamed().into(model)?;
        Ok(model)
    }
}

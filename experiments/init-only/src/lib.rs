//! The floor: build the model with random weights, and load nothing.
//!
//! In PyTorch: `GPTModel(config).to(device)`.

use gpt2::Gpt2;
use lab::{Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Reads, Run};

/// See the crate's documentation.
pub struct InitOnly;

impl Experiment for InitOnly {
    const NAME: &'static str = "init-only";
    const SUMMARY: &'static str = "build the model with random weights on the device; no load";
    const READS: Reads = Reads::Nothing;

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        match memory {
            MemoryModel::Discrete => Contract::discrete(0, size.model_bytes),
            MemoryModel::Unified => Contract::unified(size.model_bytes),
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        run.enter(Phase::Materialise);
        // Burn's parameters are lazy: a model that is only built holds no memory. The study's model does,
        // so every parameter is initialised here.
        let mut model = run.lazy_model();
        run.materialise(&mut model);
        Ok(model)
    }
}

//! Burn's own format, as a Burn user loads it: [`BurnpackStore`] of burn-store 0.21.
//!
//! The file was written by the same store from the same module, so that names need no mapping.

use burn_store::{BurnpackStore, ModuleSnapshot};
use checkpoint::Format;
use gpt2::Gpt2;
use lab::{
    Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Reads, Run, Variant,
};

/// See the crate's documentation.
pub struct Burnpack;

const ZERO_COPY: &str = "burnpack:zero-copy";

impl Experiment for Burnpack {
    const NAME: &'static str = "burnpack";
    const SUMMARY: &'static str = "Burn's own format, by burn-store's BurnpackStore";
    const VARIANTS: &'static [Variant] = &[Variant {
        name: ZERO_COPY,
        summary: "the same with zero_copy: the tensors are slices of the mapped file where the device can use them",
    }];
    const READS: Reads = Reads::Only(Format::Burnpack);

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        match memory {
            MemoryModel::Discrete => Contract::discrete(
                size.store_bytes(size.largest_tensor_bytes),
                size.model_bytes,
            )
            .whatever_pools_hold(),
            MemoryModel::Unified => Contract::unified(size.model_bytes + size.largest_tensor_bytes),
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        let mut model = run.lazy_model();
        run.check_unsharded(&mut model)?;
        run.enter(Phase::Read);
        let mut store = BurnpackStore::from_file(run.checkpoint_path());
        store = store.zero_copy(run.variant == ZERO_COPY);
        let applied = model.load_from(&mut store);
        applied.map_err(|error| Error::store("burn-store", run.checkpoint_path(), &error))?;
        Ok(model)
    }
}

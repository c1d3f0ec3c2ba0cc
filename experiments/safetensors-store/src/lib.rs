//! A safetensors file as a Burn user loads it: [`SafetensorsStore`](burn_store::SafetensorsStore) of burn-store 0.21, with
//! the checkpoint's names mapped to the module's paths.

use burn_store::ModuleSnapshot;
use checkpoint::Format;
use gpt2::{Gpt2, MODULE_PATHS};
use lab::{Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Reads, Run};

/// See the crate's documentation.
pub struct SafetensorsStore;

impl Experiment for SafetensorsStore {
    const NAME: &'static str = "safetensors-store";
    const SUMMARY: &'static str = "a safetensors file, by burn-store's SafetensorsStore";
    const READS: Reads = Reads::Only(Format::Safetensors);

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
        let mut store = burn_store::SafetensorsStore::from_file(run.checkpoint_path());
        for (name, path) in MODULE_PATHS {
            store = store.with_key_remapping(name, path);
        }
        let applied = model.load_from(&mut store);
        applied.map_err(|error| Error::store("burn-store", run.checkpoint_path(), &error))?;
        Ok(model)
    }
}

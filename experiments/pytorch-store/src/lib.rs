//! A `.pth` file as a Burn user loads it: [`PytorchStore`](burn_store::pytorch::PytorchStore) of burn-store 0.21, with the
//! checkpoint's names mapped to the module's paths. It opens the archive anew for every tensor; and a read error gives zeros
//! in silence (`pickle_reader.rs`), which the digests of a run would tell.

use burn_store::ModuleSnapshot;
use checkpoint::Format;
use gpt2::{Gpt2, MODULE_PATHS};
use lab::{Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Reads, Run};

/// See the crate's documentation.
pub struct PytorchStore;

impl Experiment for PytorchStore {
    const NAME: &'static str = "pytorch-store";
    const SUMMARY: &'static str = "a PyTorch .pth file, by burn-store's PytorchStore";
    const READS: Reads = Reads::Only(Format::Pth);

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        match memory {
            MemoryModel::Discrete => Contract::discrete(
                size.store_bytes(2 * size.largest_tensor_bytes),
                size.model_bytes,
            )
            .whatever_pools_hold(),
            MemoryModel::Unified => {
                Contract::unified(size.model_bytes + 2 * size.largest_tensor_bytes)
            }
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        let mut model = run.lazy_model();
        run.check_unsharded(&mut model)?;
        run.enter(Phase::Read);
        let mut store = burn_store::pytorch::PytorchStore::from_file(run.checkpoint_path());
        for (name, path) in MODULE_PATHS {
            store = store.with_key_remapping(name, path);
        }
        let applied = model.load_from(&mut store);
        applied.map_err(|error| Error::store("burn-store", run.checkpoint_path(), &error))?;
        Ok(model)
    }
}

//! A model larger than the device: the tables and a few layers stay there, and forward has the others streamed in as it comes
//! to them, each in the place of the one before.
//!
//! ```text
//!  tables │ layer 0 │ … │ layer r-2 │ ◀── layers r-1, r, … n-1 in turn      r: resident_layers
//! ```
//!
//! Forward goes through the layers in the same order every time, so that what was used last is what is needed last: keeping
//! the first ones and changing one place reads less than any cache of the recently used.

use gpt2::Gpt2;
use lab::{Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Run, Tunable};

/// See the crate's documentation.
pub struct LayerOffload;

impl Experiment for LayerOffload {
    const NAME: &'static str = "layer-offload";
    const SUMMARY: &'static str = "keep the tables and a few layers on the device, stream the others in as forward needs them";
    const TUNED_BY: &'static [Tunable] = &[Tunable::Staging, Tunable::ResidentLayers];
    const STREAMS_LAYERS: bool = true;

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        let layers = resident(&size.tuning) as u64;
        let held = size.tables_bytes + layers * size.layer_bytes;
        let contract = Contract::streamed(memory, size, held);
        // The first forward is within what is measured: it compiles kernels, on a device.
        Contract {
            host_heap_bytes: contract.host_heap_bytes + (32 << 20),
            ..contract.with_kept_buffers(size.layer_bytes)
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        let mut model = run.lazy_model();
        let is_resident = |layer| layer < resident(&run.tuning);
        let load = run.load_only(&mut model, |spec| spec.layer.is_none_or(is_resident))?;
        let (model, _) = load.streamed().into(model)?;
        Ok(model)
    }

    fn bring_layer<B: Platform>(
        run: &Run<B>,
        model: &mut Gpt2<B>,
        layer: usize,
    ) -> Result<(), Error> {
        let is_there = |model: &mut Gpt2<B>, layer| {
            let parameters = model.layer_mut(&run.config, layer);
            let mut shards = parameters.iter().flat_map(|parameter| &parameter.shards);
            shards.all(|shard| shard.is_initialised())
        };
        if is_there(model, layer) {
            return Ok(());
        }
        run.enter(Phase::Drop);
        // At most one of those that change is there: most likely the one before.
        let changing = resident(&run.tuning) - 1..run.config.layers;
        let before = (changing.start..layer).rev();
        let behind = (layer + 1..changing.end).rev();
        if let Some(there) = before.chain(behind).find(|&other| is_there(model, other)) {
            for parameter in model.layer_mut(&run.config, there) {
                parameter.release();
            }
        }
        let load = run.load_layer(model, layer)?;
        load.streamed().apply(model.block_mut(layer))?;
        Ok(())
    }
}

/// At least the one that forward is at.
fn resident(tuning: &lab::Tuning) -> usize {
    tuning.resident_layers.max(1)
}

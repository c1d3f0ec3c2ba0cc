//! When both memories are scarce: every parameter in a file of its own, loaded, copied and freed one at a
//! time.
//!
//! In PyTorch:
//! ```python
//! with torch.device("meta"):
//!     model = GPTModel(config)
//! model = model.to_empty(device=device)
//! with torch.no_grad():
//!     for name, parameter in model.named_parameters():
//!         parameter.copy_(torch.load(f"parameters/{name}.pt", weights_only=True))
//! ```

use checkpoint::Format;
use gpt2::Gpt2;
use lab::{Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Reads, Run};

/// See the crate's documentation.
pub struct PerTensor;

impl Experiment for PerTensor {
    const NAME: &'static str = "per-tensor";
    const SUMMARY: &'static str = "build without memory, allocate empty, load, copy and free one file per parameter at a time";
    const READS: Reads = Reads::Only(Format::PerTensor);

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        let one_more = size.model_bytes + size.largest_tensor_bytes;
        match memory {
            MemoryModel::Discrete => Contract::discrete(size.upload_bytes(), one_more)
                .with_kept_buffers(size.layer_bytes),
            MemoryModel::Unified => Contract::unified(one_more),
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        run.enter(Phase::Materialise);
        let mut model = run.lazy_model();
        for parameter in model.tensors_mut(&run.config) {
            let empty = run.allocate_empty(&parameter);
            parameter.assign(empty);
        }

        run.enter(Phase::Open);
        let checkpoint = run.open()?;
        for parameter in model.tensors_mut(&run.config) {
            let loaded = run.load_tensor(&checkpoint, &parameter)?;
            run.enter(Phase::Assign);
            parameter.assign(loaded);
        }
        Ok(model)
    }
}

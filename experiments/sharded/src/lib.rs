//! A checkpoint in several safetensors files with an index, as on the Hugging Face hub, streamed file by file.
//!
//! In PyTorch:
//! ```python
//! index = json.load(open("model.safetensors.index.json"))["weight_map"]
//! for shard in sorted(set(index.values())):
//!     state_dict = safetensors.torch.load_file(shard)
//!     model.load_state_dict(state_dict, strict=False, assign=True)
//!     del state_dict
//! ```
//!
//! There the largest file stands beside the model; here a piece of a tensor does.

use std::collections::HashMap;

use checkpoint::Format;
use gpt2::Gpt2;
use lab::{
    Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Reads, Run, Tunable,
};

/// See the crate's documentation.
pub struct Sharded;

impl Experiment for Sharded {
    const NAME: &'static str = "sharded";
    const SUMMARY: &'static str =
        "build without memory, stream a checkpoint of several files with an index, file by file";
    const READS: Reads = Reads::Only(Format::Sharded);
    const TUNED_BY: &'static [Tunable] = &[Tunable::Staging];

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        Contract::streamed(memory, size, size.model_bytes)
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        let mut model = run.lazy_model();
        let checkpoint = run.open()?;
        let parameters = model.tensors_mut(&run.config).into_iter();
        let mut by_name: HashMap<_, _> = parameters
            .map(|parameter| (parameter.spec.name.clone(), parameter))
            .collect();
        // The index lists the tensors file by file, so that each file is opened once and read from front to back.
        let mut reader = run.reader();
        for tensor in checkpoint.tensors() {
            if let Some(parameter) = by_name.remove(&tensor.name) {
                let loaded = run.stream_tensor(&mut reader, &checkpoint, &parameter)?;
                run.enter(Phase::Assign);
                parameter.assign(loaded);
            }
        }
        // What no file holds is named here.
        for parameter in by_name.into_values() {
            checkpoint.tensor(&parameter.spec.name, &parameter.spec.shape)?;
        }
        Ok(model)
    }
}

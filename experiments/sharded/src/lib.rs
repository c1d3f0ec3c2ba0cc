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

use checkpoint::Format;
use gpt2::Gpt2;
use lab::{Contract, Error, Experiment, Footprint, MemoryModel, Platform, Reads, Run, Tunable};

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
        // The library reads in the order of the files: each is opened once and read from front to back.
        let (model, _) = run.load(&mut model)?.streamed().into(model)?;
        Ok(model)
    }
}

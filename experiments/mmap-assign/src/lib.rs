//! The study's recommendation: map the file, and make the loaded tensors the parameters.
//!
//! In PyTorch:
//! ```python
//! with torch.device("meta"):
//!     model = GPTModel(config)
//! state_dict = torch.load("model.pth", map_location="cpu", mmap=True, weights_only=True)
//! model.load_state_dict(state_dict, assign=True)
//! model.to(device)
//! ```

use checkpoint::Mapped;
use gpt2::Gpt2;
use lab::{Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Run};

/// See the crate's documentation.
pub struct MmapAssign;

impl Experiment for MmapAssign {
    const NAME: &'static str = "mmap-assign";
    const SUMMARY: &'static str =
        "build without memory, map the file, assign the loaded tensors as the parameters";

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        match memory {
            MemoryModel::Discrete => Contract::discrete(size.upload_bytes(), size.model_bytes),
            MemoryModel::Unified => Contract::unified(size.model_bytes),
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        let mut model = run.lazy_model();
        let checkpoint = run.open()?;
        // SAFETY: nobody writes to the checkpoint while it is loaded. Should somebody do so all the same,
        // the parameters' digests tell, and a truncated file ends this process alone.
        let mapped = unsafe { Mapped::new(&checkpoint)? };

        for parameter in model.tensors_mut(&run.config) {
            let tensor = checkpoint.tensor(&parameter.spec.name, &parameter.spec.shape)?;
            let mut loaded = Vec::new();
            for shard in &parameter.shards {
                // Touching the pages reads the file; the copy is what the device's parameter is made of.
                run.enter(Phase::Read);
                let data = run.copy(&mapped, tensor, shard.rows.clone())?;
                run.enter(Phase::Upload);
                loaded.push(run.upload(data)?);
            }
            run.enter(Phase::Assign);
            parameter.assign(loaded);
        }
        run.enter(Phase::Drop);
        drop(mapped);
        Ok(model)
    }
}

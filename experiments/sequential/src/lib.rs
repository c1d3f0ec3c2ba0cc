//! For scarce device memory: read the state dict to the host, copy it into the model on the device one
//! parameter at a time.
//!
//! In PyTorch:
//! ```python
//! model = GPTModel(config).to(device)
//! state_dict = torch.load("model.pth", map_location="cpu", weights_only=True)
//! with torch.no_grad():
//!     for name, parameter in model.named_parameters():
//!         parameter.copy_(state_dict[name].to(device))
//! ```

use gpt2::Gpt2;
use lab::{Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Run};

/// See the crate's documentation.
pub struct Sequential;

impl Experiment for Sequential {
    const NAME: &'static str = "sequential";
    const SUMMARY: &'static str =
        "build on the device, read the state dict to the host, copy parameter by parameter";

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        match memory {
            // On the host the state dict, and Burn's two copies of what is uploaded first, which is the largest.
            MemoryModel::Discrete => Contract::discrete(
                size.model_bytes + 2 * size.largest_shard_bytes,
                size.model_bytes + size.largest_tensor_bytes,
            )
            .with_kept_buffers(size.layer_bytes),
            MemoryModel::Unified => Contract::unified(2 * size.model_bytes),
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        run.enter(Phase::Materialise);
        let mut model = run.lazy_model();
        run.materialise(&mut model);

        run.enter(Phase::Open);
        let checkpoint = run.open()?;
        run.enter(Phase::Read);
        let mut state_dict = Vec::new();
        for parameter in model.tensors_mut(&run.config) {
            state_dict.push(run.read_tensor(&checkpoint, &parameter)?);
        }

        let mut pairs: Vec<_> = model
            .tensors_mut(&run.config)
            .into_iter()
            .zip(state_dict)
            .collect();
        // Smallest first: an upload copies its tensor twice on the host (CubeCL 0.10). By the time the
        // large ones come, the small ones have left the host, and the copies find room in what they held.
        pairs.sort_by_key(|(parameter, _)| parameter.spec.elements());
        for (parameter, data) in pairs {
            run.enter(Phase::Upload);
            let loaded = run.upload_all(data)?;
            run.enter(Phase::Assign);
            parameter.assign(loaded);
        }
        Ok(model)
    }
}

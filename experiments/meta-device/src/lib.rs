//! For scarce host memory: build the model without memory, allocate it empty on the device, read the state
//! dict to the device, copy it in.
//!
//! In PyTorch:
//! ```python
//! with torch.device("meta"):
//!     model = GPTModel(config)
//! model = model.to_empty(device=device)
//! state_dict = torch.load("model.pth", map_location=device, weights_only=True)
//! with torch.no_grad():
//!     for name, parameter in model.named_parameters():
//!         parameter.copy_(state_dict[name])
//! ```

use gpt2::Gpt2;
use lab::{Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Run};

/// See the crate's documentation.
pub struct MetaDevice;

impl Experiment for MetaDevice {
    const NAME: &'static str = "meta-device";
    const SUMMARY: &'static str = "build without memory, allocate empty on the device, read the state dict to the device, copy it in";

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        match memory {
            MemoryModel::Discrete => Contract::discrete(size.upload_bytes(), 2 * size.model_bytes),
            MemoryModel::Unified => Contract::unified(2 * size.model_bytes),
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        run.enter(Phase::Materialise);
        // Lazy parameters are Burn's meta device.
        let mut model = run.lazy_model();
        for parameter in model.tensors_mut(&run.config) {
            let empty = run.allocate_empty(&parameter);
            parameter.assign(empty);
        }

        run.enter(Phase::Open);
        let checkpoint = run.open()?;
        let mut state_dict = Vec::new();
        for parameter in model.tensors_mut(&run.config) {
            state_dict.push(run.load_tensor(&checkpoint, &parameter)?);
        }

        // The empty model and the state dict are complete now, and both on the device: this is the peak.
        run.enter(Phase::Assign);
        for (parameter, loaded) in model.tensors_mut(&run.config).into_iter().zip(state_dict) {
            parameter.assign(loaded);
        }
        Ok(model)
    }
}

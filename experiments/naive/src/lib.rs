//! The usual way: build the model on the device, read the whole state dict to the device, copy it in.
//!
//! In PyTorch:
//! ```python
//! model = GPTModel(config).to(device)
//! model.load_state_dict(torch.load("model.pth", map_location=device, weights_only=True))
//! ```

use gpt2::Gpt2;
use lab::{Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Run};

/// See the crate's documentation.
pub struct Naive;

impl Experiment for Naive {
    const NAME: &'static str = "naive";
    const SUMMARY: &'static str =
        "build on the device, read the whole state dict to the device, copy it into the model";

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        match memory {
            MemoryModel::Discrete => Contract::discrete(size.upload_bytes(), 2 * size.model_bytes),
            MemoryModel::Unified => Contract::unified(2 * size.model_bytes),
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        run.enter(Phase::Materialise);
        let mut model = run.lazy_model();
        run.materialise(&mut model);

        run.enter(Phase::Open);
        let checkpoint = run.open()?;
        let mut state_dict = Vec::new();
        for parameter in model.tensors_mut(&run.config) {
            state_dict.push(run.load_tensor(&checkpoint, &parameter)?);
        }

        // Model and state dict are complete now, and both on the device: this is the peak. Burn's tensors
        // are values, so that the copy into a parameter is its replacement.
        run.enter(Phase::Assign);
        for (parameter, loaded) in model.tensors_mut(&run.config).into_iter().zip(state_dict) {
            parameter.assign(loaded);
        }
        Ok(model)
    }
}

//! Build and load the model in host memory, then move it to the device.
//!
//! In PyTorch:
//! ```python
//! model = GPTModel(config)
//! model.load_state_dict(torch.load("model.pth", map_location="cpu", weights_only=True))
//! model.to(device)
//! ```

use burn::tensor::Tensor;
use gpt2::Gpt2;
use lab::{Contract, Error, Experiment, Footprint, Host, MemoryModel, Phase, Platform, Run};

/// See the crate's documentation.
pub struct HostThenDevice;

impl Experiment for HostThenDevice {
    const NAME: &'static str = "host-then-device";
    const SUMMARY: &'static str = "build on the host, read the state dict to the host, copy it in, move the model to the device";

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        match memory {
            MemoryModel::Discrete => Contract::discrete(2 * size.model_bytes, size.model_bytes),
            MemoryModel::Unified => Contract::unified(2 * size.model_bytes),
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        run.enter(Phase::Materialise);
        let mut on_host = run.lazy_host_model();
        run.materialise(&mut on_host);

        run.enter(Phase::Open);
        let checkpoint = run.open()?;
        run.enter(Phase::Read);
        let mut state_dict = Vec::new();
        for parameter in on_host.tensors_mut(&run.config) {
            state_dict.push(run.read_tensor(&checkpoint, &parameter)?);
        }

        // Model and state dict are complete now, and both on the host: this is its peak.
        run.enter(Phase::Assign);
        for (parameter, data) in on_host.tensors_mut(&run.config).into_iter().zip(state_dict) {
            let host = Default::default();
            let loaded = data
                .into_iter()
                .map(|data| Tensor::<Host, 1>::from_data(data, &host));
            parameter.assign(loaded.collect());
        }

        // `model.to(device)`. Burn moves a module between devices of one backend; the host is another
        // backend, so each parameter is taken out, uploaded, and freed on the host.
        let mut model = run.lazy_model();
        let pairs = on_host.tensors_mut(&run.config).into_iter();
        for (from, to) in pairs.zip(model.tensors_mut(&run.config)) {
            run.enter(Phase::Upload);
            let data = from.take().into_iter().map(Tensor::into_data).collect();
            let uploaded = run.upload_all(data)?;
            run.enter(Phase::Assign);
            to.assign(uploaded);
        }
        Ok(model)
    }
}

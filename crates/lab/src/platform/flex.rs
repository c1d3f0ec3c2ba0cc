//! Host memory: Burn's flex backend.

use burn::tensor::Tensor;
use burn_flex::{Flex, FlexDevice};
use gpt2::Gpt2;
use meter::DeviceMemory;

use super::{BringLayer, Platform, forward, training};
use crate::{Error, FineTuning, MemoryModel, Run, Tell};

impl Platform for Flex {
    const MEMORY: MemoryModel = MemoryModel::Unified;

    fn open(index: usize) -> Result<FlexDevice, Error> {
        match index {
            0 => Ok(FlexDevice),
            _ => Err(Error::Device {
                device: format!("flex:{index}"),
                reason: "there is one flex device, flex".to_owned(),
            }),
        }
    }

    fn max_tensor_bytes(_: &FlexDevice) -> Option<u64> {
        None
    }

    fn memory(_: &FlexDevice) -> Option<DeviceMemory> {
        None
    }

    fn finish(_: &FlexDevice) -> Result<(), Error> {
        Ok(())
    }

    /// In place: `into_data` would copy a tensor that the model still holds.
    fn read_back(tensor: Tensor<Self, 1>, each: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        let tensor = tensor.into_primitive().tensor().to_contiguous();
        let start = tensor.layout().start_offset() * tensor.dtype().size();
        let length = tensor.layout().num_elements() * tensor.dtype().size();
        each(&tensor.bytes()[start..start + length]);
        Ok(())
    }

    fn logits(
        model: &mut Gpt2<Self>,
        tokens: &[i32],
        device: &FlexDevice,
        bring: &mut BringLayer<'_, Self>,
    ) -> Result<Vec<f32>, Error> {
        forward::logits(model, tokens, device, bring)
    }

    fn train(
        model: Gpt2<Self>,
        run: &Run<Self>,
        tokens: &[i32],
        tuning: &FineTuning,
        tell: &mut Tell<'_>,
    ) -> Result<(), Error> {
        training::train(model, run, tokens, tuning, tell)
    }
}

//! Host memory: Burn's flex backend.

use burn::tensor::quantization::QuantScheme;
use burn::tensor::{Bytes, DType, Shape, Tensor, TensorData, TensorPrimitive};
use burn_flex::{Flex, FlexDevice, FlexQTensor, FlexTensor, Layout};
use checkpoint::Dtype;
use gpt2::Gpt2;
use meter::DeviceMemory;

use super::{BringLayer, Filling, Platform, forward, pages, training};
use crate::quantise::Quantised;
use crate::{Error, FineTuning, MemoryModel, Run, Tell};

impl Platform for Flex {
    const MEMORY: MemoryModel = MemoryModel::Unified;
    type Filling = HostFilling;

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

    fn begin(_: &FlexDevice, elements: usize, dtype: Dtype) -> HostFilling {
        let float = match dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::Bf16 => DType::BF16,
            Dtype::I8 => panic!("quantised weights are no floats: see quantise"),
        };
        let element_bytes = dtype.bytes() as usize;
        HostFilling {
            memory: pages::zeroed(elements * element_bytes, element_bytes),
            elements,
            dtype: float,
        }
    }

    fn quantised(
        _: &FlexDevice,
        matrix: Quantised,
        shape: [usize; 2],
        scheme: QuantScheme,
    ) -> Tensor<Self, 2> {
        let values = FlexTensor::from_data(TensorData::new(matrix.values, shape));
        let matrix = FlexQTensor::new(values, scheme, matrix.scales);
        Tensor::from_primitive(TensorPrimitive::QFloat(matrix))
    }

    fn strided(
        memory: Bytes,
        shape: [usize; 2],
        strides: [usize; 2],
        dtype: DType,
    ) -> Tensor<Self, 2> {
        let strides = strides.map(|stride| stride as isize).to_vec();
        let layout = Layout::new(Shape::new(shape), strides, 0);
        let tensor = FlexTensor::new(memory, layout, dtype);
        Tensor::from_primitive(TensorPrimitive::Float(tensor))
    }

    fn staging_buffer(_: &FlexDevice, bytes: usize) -> Bytes {
        Bytes::from_elems(vec![0u8; bytes])
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

/// Memory that becomes a tensor's as it is. Fresh memory from the system is zero already, and no page of it is touched
/// before it is filled.
pub struct HostFilling {
    memory: Bytes,
    elements: usize,
    dtype: DType,
}

impl Filling<Flex> for HostFilling {
    fn memory(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.memory)
    }

    fn write(&mut self, offset_bytes: u64, piece: Bytes) -> Result<(), Error> {
        let start = offset_bytes as usize;
        self.memory[start..start + piece.len()].copy_from_slice(&piece);
        Ok(())
    }

    fn finish(self) -> Tensor<Flex, 1> {
        let data = TensorData::from_bytes(self.memory, [self.elements], self.dtype);
        Tensor::from_data(data, &FlexDevice)
    }
}

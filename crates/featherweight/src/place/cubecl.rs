//! What devices of CubeCL's have in common: memory of exactly a tensor's size, and what becomes of it. (CubeCL 0.10, burn-cubecl
//! 0.21.)

use burn::tensor::quantization::{QParamTensor, QParams, QuantScheme, params_shape};
use burn::tensor::{Bytes, DType, Shape};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::server::MemoryLayoutDescriptor;
use cubecl::zspace::metadata::Metadata;

use crate::Error;
use crate::change::Quantised;

/// A device.
pub(super) struct Cube<R: CubeRuntime> {
    pub device: R::Device,
}

impl<R: CubeRuntime> Cube<R> {
    /// A tensor that nothing is written to yet. The memory comes from CubeCL's persistent pool, which allocates exactly what is
    /// asked for.
    pub fn empty(&self, shape: &[usize], dtype: DType) -> Result<CubeTensor<R>, Error> {
        let client = R::client(&self.device);
        let bytes = super::bytes_of(shape, dtype)?;
        let handle = client.memory_persistent_allocation((), |()| client.empty(bytes));
        let handle = handle.map_err(|error| self.error(error))?;
        let (shape, device) = (Shape::from(shape.to_vec()), self.device.clone());
        Ok(CubeTensor::new_contiguous(
            client, device, shape, handle, dtype,
        ))
    }

    pub fn max_tensor_bytes(&self) -> u64 {
        R::client(&self.device).properties().memory.max_page_size
    }

    /// What the device says of itself, with all that it says.
    pub fn error(&self, error: impl std::fmt::Debug) -> Error {
        Error::device(&self.device, format!("{error:?}"))
    }

    /// In the persistent pool, and row by row without gaps: Burn's `from_data` begins each row where the device likes it best, on
    /// CUDA at a multiple of 512 bytes, which takes a third more for rows of 768.
    pub fn quantised(
        &self,
        matrix: Quantised,
        shape: &[usize],
        scheme: QuantScheme,
    ) -> Result<CubeTensor<R>, Error> {
        let client = R::client(&self.device);
        let Quantised { values, scales } = matrix;
        let shape = Shape::from(shape.to_vec());
        let scales_shape = params_shape(&shape, scheme.level);
        let contiguous = MemoryLayoutDescriptor::contiguous;
        let data = vec![
            (
                contiguous(shape.clone(), size_of::<i8>()),
                Bytes::from_elems(values),
            ),
            (
                contiguous(scales_shape.clone(), size_of::<f32>()),
                Bytes::from_elems(scales),
            ),
        ];
        let created = client.memory_persistent_allocation(data, |data| client.create_tensors(data));
        let created = created.map_err(|error| Error::device(&self.device, format!("{error:?}")))?;
        let [values, scales] = <[_; 2]>::try_from(created).map_err(|_| {
            Error::device(
                &self.device,
                "it made another number of tensors than was asked for",
            )
        })?;
        // One buffer for both: the scales are at these offsets in it.
        let scales = QParamTensor {
            offset_start: scales.memory.offset_start.unwrap_or(0) as usize,
            offset_end: scales.memory.offset_end.unwrap_or(0) as usize,
            metadata: Metadata::new(scales_shape, scales.strides),
            dtype: DType::F32,
        };
        Ok(CubeTensor::new_quantized(
            client.clone(),
            values.memory,
            shape,
            self.device.clone(),
            values.strides,
            DType::QFloat(scheme),
            QParams { scales },
        ))
    }
}

/// The tensor as one of Burn's fusion.
#[cfg(feature = "fusion")]
pub(super) fn fused<R: CubeRuntime>(
    tensor: CubeTensor<R>,
) -> burn_fusion::FusionTensor<burn_cubecl::fusion::FusionCubeRuntime<R>> {
    use burn_cubecl::CubeBackend;
    use burn_fusion::client::GlobalFusionClient;
    use burn_fusion::stream::OperationStreams;
    use burn_ir::{InitOperationIr, OperationIr};

    // Element types play no part in what is done here.
    type Whichever<R> = CubeBackend<R, f32, i32, u32>;
    let client =
        GlobalFusionClient::<burn_cubecl::fusion::FusionCubeRuntime<R>>::load(&tensor.device);
    let (shape, dtype) = (tensor.meta.shape().clone(), tensor.dtype);
    let handle = tensor.into();
    let described = InitOperationIr::create(shape, dtype, || client.register_tensor_handle(handle));
    let mut outputs = client.register(
        OperationStreams::default(),
        OperationIr::Init(described),
        burn_fusion::NoOp::<Whichever<R>>::new(),
    );
    outputs.pop().expect("one tensor comes out of one")
}

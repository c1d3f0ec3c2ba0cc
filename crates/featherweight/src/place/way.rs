//! Which way tensors of a backend take, by the type of its primitives.

use std::any::Any;
#[cfg(any(feature = "flex", feature = "cubecl"))]
use std::any::TypeId;
use std::fmt;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::quantization::QuantScheme;
use burn::tensor::{Bool, Bytes, DType, Int, Tensor, TensorData, TensorPrimitive};
use checkpoint::TensorRange;

use super::Pieces;
use crate::change::Quantised;
use crate::{Error, Observe};

/// How a tensor's bytes came to where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// Read straight into the tensor's own memory, on the host.
    InPlace,
    /// Read into pieces, and these written into the tensor's buffer on the device.
    InPieces,
    /// Read whole into host memory, and handed to the backend (`from_data`), which may copy it: no faster way is known.
    Whole,
    /// Not read: the file's mapped pages are the tensor's memory.
    Mapped,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::InPlace => "read in place",
            Way::InPieces => "written to the device in pieces",
            Way::Whole => "handed to the backend whole",
            Way::Mapped => "mapped",
        })
    }
}

/// Whether a backend's tensors are of this type; integers', which no autodiff wraps.
#[cfg(any(feature = "flex", feature = "cubecl"))]
fn is<B: Backend, T: 'static>() -> bool {
    TypeId::of::<B::IntTensorPrimitive>() == TypeId::of::<T>()
}

/// Calls a macro with each runtime of CubeCL's that is built in, and with what writes pieces there.
#[cfg(feature = "cubecl")]
macro_rules! for_each_runtime {
    ($do:ident) => {
        #[cfg(feature = "wgpu-unfused")]
        $do!(burn_wgpu::WgpuRuntime, super::wgpu::Wgpu);
        #[cfg(feature = "cuda-unfused")]
        $do!(::cubecl::cuda::CudaRuntime, super::cuda::Cuda);
    };
}

/// The way of a backend's tensors on this device, and what writes pieces there.
pub(super) fn of<B: Backend>(
    device: &B::Device,
    observer: &Arc<dyn Observe>,
) -> (Way, Option<Box<dyn Pieces>>) {
    #[cfg(feature = "flex")]
    if is::<B, burn_flex::FlexTensor>() {
        return (Way::InPlace, None);
    }
    #[cfg(feature = "cubecl")]
    {
        use burn_cubecl::tensor::CubeTensor;
        macro_rules! find {
            ($runtime:ty, $pieces:ty) => {
                if is::<B, CubeTensor<$runtime>>() || is_fused::<B, $runtime>() {
                    let own = (device as &dyn Any).downcast_ref();
                    if let Some(own) = own {
                        let pieces = <$pieces>::new(own, observer);
                        return (Way::InPieces, Some(Box::new(pieces)));
                    }
                }
            };
        }
        for_each_runtime!(find);
    }
    let _ = (device as &dyn Any, observer);
    (Way::Whole, None)
}

#[cfg(feature = "cubecl")]
#[cfg_attr(
    not(feature = "fusion"),
    expect(clippy::extra_unused_type_parameters, reason = "nothing fuses")
)]
fn is_fused<B: Backend, R: burn_cubecl::CubeRuntime>() -> bool {
    #[cfg(feature = "fusion")]
    return is::<B, burn_fusion::FusionTensor<burn_cubecl::fusion::FusionCubeRuntime<R>>>();
    #[cfg(not(feature = "fusion"))]
    false
}

fn lost<T>() -> Result<T, Error> {
    Err(Error::Unsupported(
        "the backend's tensors are not of the type that they were found to be".to_owned(),
    ))
}

/// A tensor of CubeCL's as a primitive of type `P`, plain or under fusion; as it was, where it is none.
fn primitive<P: 'static>(tensor: Box<dyn Any + Send>) -> Result<P, Box<dyn Any + Send>> {
    #[cfg(feature = "cubecl")]
    {
        use burn_cubecl::tensor::CubeTensor;
        let mut tensor = tensor;
        macro_rules! find {
            ($runtime:ty, $pieces:ty) => {
                tensor = match tensor.downcast::<CubeTensor<$runtime>>() {
                    Ok(own) => return made_of(*own),
                    Err(other) => other,
                };
            };
        }
        for_each_runtime!(find);
        Err(tensor)
    }
    #[cfg(not(feature = "cubecl"))]
    Err(tensor)
}

#[cfg(feature = "cubecl")]
fn made_of<P: 'static, R: burn_cubecl::CubeRuntime>(
    tensor: burn_cubecl::tensor::CubeTensor<R>,
) -> Result<P, Box<dyn Any + Send>> {
    let mut tensor = Some(tensor);
    let mut found: Option<P> = None;
    if let Some(found) = (&mut found as &mut dyn Any).downcast_mut() {
        *found = tensor.take();
    }
    #[cfg(feature = "fusion")]
    if let Some(found) = (&mut found as &mut dyn Any).downcast_mut() {
        *found = tensor.take().map(super::cubecl::fused);
    }
    match (found, tensor) {
        (Some(found), _) => Ok(found),
        (None, Some(tensor)) => Err(Box::new(tensor)),
        (None, None) => unreachable!("it was put where it was taken for"),
    }
}

/// A tensor of CubeCL's as a float tensor of this backend.
pub(super) fn float<B: Backend, const D: usize>(
    tensor: Box<dyn Any + Send>,
    dtype: DType,
) -> Result<Tensor<B, D>, Error> {
    let float = primitive::<B::FloatTensorPrimitive>(tensor).or_else(|tensor| {
        // Autodiff wraps floats, and integers not: it wraps what comes out of this. Where the dtype stays as it is, CubeCL
        // returns what it was given (cast in burn-cubecl 0.21).
        let inner = primitive::<B::IntTensorPrimitive>(tensor)?;
        Ok(B::int_into_float(inner, dtype.into()))
    });
    let float: Result<_, Box<dyn Any + Send>> = float;
    let float = float.or_else(|_| lost())?;
    Ok(Tensor::from_primitive(TensorPrimitive::Float(float)))
}

/// The same of integers.
pub(super) fn int<B: Backend, const D: usize>(
    tensor: Box<dyn Any + Send>,
) -> Result<Tensor<B, D, Int>, Error> {
    let int = primitive::<B::IntTensorPrimitive>(tensor).or_else(|_| lost())?;
    Ok(Tensor::from_primitive(int))
}

/// The same of booleans.
pub(super) fn bool<B: Backend, const D: usize>(
    tensor: Box<dyn Any + Send>,
) -> Result<Tensor<B, D, Bool>, Error> {
    let bool = primitive::<B::BoolTensorPrimitive>(tensor).or_else(|_| lost())?;
    Ok(Tensor::from_primitive(bool))
}

/// A quantised matrix as a primitive of this backend.
pub(super) fn quantised<B: Backend>(
    matrix: Quantised,
    shape: &[usize],
    scheme: QuantScheme,
    device: &B::Device,
    pieces: Option<&dyn Pieces>,
) -> Result<B::QuantizedTensorPrimitive, Error> {
    #[cfg(feature = "flex")]
    if TypeId::of::<B::QuantizedTensorPrimitive>() == TypeId::of::<burn_flex::FlexQTensor>() {
        use burn_flex::{FlexQTensor, FlexTensor};
        let values = FlexTensor::from_data(TensorData::new(matrix.values, shape.to_vec()));
        let mut own = Some(FlexQTensor::new(values, scheme, matrix.scales));
        let own = (&mut own as &mut dyn Any).downcast_mut::<Option<_>>();
        return own.and_then(Option::take).map_or_else(lost, Ok);
    }
    #[cfg(feature = "cubecl")]
    if let Some(pieces) = pieces {
        return primitive(pieces.quantised(matrix, shape, scheme)?).or_else(|_| lost());
    }
    let _ = pieces;
    let data = TensorData::quantized(matrix.values, shape.to_vec(), scheme, &matrix.scales);
    Ok(B::q_from_data(data, device))
}

/// Memory that holds a tensor with its strides as a tensor of this backend: flex's.
pub(super) fn view<B: Backend, const D: usize>(
    tensor: &TensorRange,
    memory: Bytes,
) -> Result<Tensor<B, D>, Error> {
    #[cfg(feature = "flex")]
    if is::<B, burn_flex::FlexTensor>() {
        use burn::tensor::Shape;
        use burn_flex::{FlexTensor, Layout};
        let dtype = crate::change::burn_dtype(tensor.dtype);
        let strides = tensor.strides.iter().map(|&stride| stride as isize);
        let layout = Layout::new(Shape::from(tensor.shape.clone()), strides.collect(), 0);
        let mut own = Some(FlexTensor::new(memory, layout, dtype));
        let own = (&mut own as &mut dyn Any).downcast_mut::<Option<_>>();
        let primitive = own.and_then(Option::take).map_or_else(lost, Ok)?;
        return Ok(Tensor::from_primitive(TensorPrimitive::Float(primitive)));
    }
    let _ = (tensor, memory);
    Err(Error::Unsupported(
        "a device with memory of its own, or a backend under autodiff, cannot use a file's pages with strides".to_owned(),
    ))
}

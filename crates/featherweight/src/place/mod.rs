//! A tensor's memory, per backend: begun, filled or written at offsets, finished.
//!
//! ```text
//!  flex              the tensor's own memory: filled in place, no buffer between
//!  CubeCL            a buffer of exactly the tensor's size: written in pieces at offsets, plain, under fusion or autodiff
//!  any other         memory on the host, handed to the backend whole (`from_data`): a tensor at a time
//! ```
//!
//! The backend is found by the type of its tensor primitives, so that aliases and element types need nothing. What is known
//! of flex, CubeCL and fusion (Burn 0.21, CubeCL 0.10) stands in this folder alone.

#[cfg(feature = "cuda-unfused")]
mod copies;
#[cfg(feature = "cubecl")]
mod cubecl;
#[cfg(feature = "cuda-unfused")]
mod cuda;
mod host;
#[cfg(feature = "cuda-unfused")]
mod pinned;
#[cfg(feature = "cubecl")]
mod recycled;
mod way;
#[cfg(feature = "wgpu-unfused")]
mod wgpu;

use std::any::Any;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::quantization::QuantScheme;
use burn::tensor::{Bool, Bytes, DType, Int, Tensor, TensorData, TensorPrimitive};
use checkpoint::{PrivateMap, TensorRange};

use crate::change::Quantised;
use crate::{Error, Observe};

#[cfg(test)]
pub(crate) use host::HostFill;
pub(crate) use host::{heap, over_map, touch};
pub use way::Way;

/// Memory of a tensor on its way to be filled.
pub trait Fill: Send {
    /// The memory itself, where the host can write there: fill it, and nothing else needs to be done.
    fn memory(&mut self) -> Option<&mut [u8]>;

    /// A buffer to read a piece into, which is then written: page-locked on CUDA, where it waits until there is room for it in what all
    /// pieces may take. What is in it is of no meaning.
    fn staging(&self, bytes: usize, all: Staging) -> Bytes;

    /// Sends a piece to its place, where [`Fill::memory`] has none. `offset_bytes` is a multiple of 4, and so is the piece's length,
    /// but for a tensor's end.
    ///
    /// # Errors
    ///
    /// If the device reports one, be it of a write before.
    ///
    /// # Panics
    ///
    /// If the piece does not lie within the tensor.
    fn write(&mut self, offset_bytes: u64, piece: Bytes) -> Result<(), Error>;

    /// The memory as what a tensor is made of, once its pieces are copied, or before whatever the device is asked for next.
    ///
    /// # Errors
    ///
    /// If the device reports one.
    fn finish(self: Box<Self>) -> Result<Finished, Error>;
}

/// Memory that is filled.
pub enum Finished {
    /// On the host.
    Host(Bytes),
    /// A backend's tensor, of a type that the place knows.
    Device(Box<dyn Any + Send>),
}

/// A device whose memory is written in pieces.
#[cfg_attr(
    not(feature = "cubecl"),
    expect(dead_code, reason = "no such backend is built in")
)]
trait Pieces: Send + Sync {
    /// A buffer for a tensor.
    fn begin(&self, shape: &[usize], dtype: DType) -> Result<Box<dyn Fill>, Error>;

    /// The largest tensor that the device can bind, in bytes.
    fn max_tensor_bytes(&self) -> u64;

    /// Waits until every piece is copied, or with the driver; and no longer than that may take.
    fn taken(&self) -> Result<(), Error>;

    /// Waits until every piece is written, and lets go of the staging memory.
    fn finish(&self) -> Result<(), Error>;

    /// Has the host let go of what Burn's `from_data` uploaded.
    fn release_uploaded(&self) -> Result<(), Error>;

    /// A quantised matrix, in memory of exactly its size.
    fn quantised(
        &self,
        matrix: Quantised,
        shape: &[usize],
        scheme: QuantScheme,
    ) -> Result<Box<dyn Any + Send>, Error>;
}

/// How much may be on its way to a device at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staging {
    /// All pieces together.
    pub bytes: usize,
}

impl Staging {
    /// Into so many pieces it is cut: one is read while the others are written.
    pub const PIECES: usize = 8;

    /// What is shorter is sent with more ado than it takes to send it.
    const LEAST_PIECE_BYTES: usize = 64 << 10;

    /// The length of a piece: a multiple of a page, and at least 64 KiB.
    pub fn piece_bytes(self) -> usize {
        (self.bytes / Staging::PIECES / 4096 * 4096).max(Staging::LEAST_PIECE_BYTES)
    }

    /// The share of one of so many readers that have buffers of their own: a multiple of a page, and at least 16 KiB.
    pub(crate) fn share_bytes(self, readers: usize) -> usize {
        (self.bytes / readers / 4096 * 4096).clamp(4 * 4096, 4 << 20)
    }
}

impl Default for Staging {
    /// 16 MiB.
    fn default() -> Staging {
        Staging { bytes: 16 << 20 }
    }
}

/// Where tensors of a backend lie, on one device.
pub struct Place<B: Backend> {
    device: B::Device,
    pieces: Option<Box<dyn Pieces>>,
    way: Way,
    observer: Arc<dyn Observe>,
}

impl<B: Backend> Place<B> {
    /// Finds out how tensors of this backend are filled. Sets nothing up: no configuration, no default dtype.
    pub fn new(device: &B::Device, observer: Arc<dyn Observe>) -> Place<B> {
        let (way, pieces) = way::of::<B>(device, &observer);
        Place {
            device: device.clone(),
            pieces,
            way,
            observer,
        }
    }

    /// The way that tensors take.
    pub fn way(&self) -> Way {
        self.way
    }

    /// The device.
    pub fn device(&self) -> &B::Device {
        &self.device
    }

    /// The largest tensor that the device can bind, in bytes; `None` where only memory limits it, or nobody knows.
    pub fn max_tensor_bytes(&self) -> Option<u64> {
        Some(self.pieces.as_ref()?.max_tensor_bytes())
    }

    /// Memory for a tensor, of exactly its size.
    ///
    /// # Errors
    ///
    /// If the device cannot bind so large a tensor, or refuses.
    pub fn begin(&self, shape: &[usize], dtype: DType) -> Result<Filling<B>, Error> {
        let bytes = bytes_of(shape, dtype)?;
        self.check_bytes(bytes as u64)?;
        let fill = match &self.pieces {
            Some(pieces) => pieces.begin(shape, dtype)?,
            None => Box::new(host::HostFill::new(bytes, &self.observer)),
        };
        self.observer.mark();
        Ok(Filling {
            fill,
            shape: shape.to_vec(),
            dtype,
            device: self.device.clone(),
        })
    }

    /// A flat tensor of data on the host, as Burn makes it of a parameter's (`Param::from_data`): by `from_data`, in memory of
    /// exactly its size. CubeCL 0.10 copies the data twice on the host meanwhile, and tells nobody that the device has no memory for
    /// it: what was loaded so is to be verified.
    ///
    /// # Errors
    ///
    /// If the device cannot bind so large a tensor, or refuses.
    pub fn upload(&self, data: TensorData) -> Result<Tensor<B, 1>, Error> {
        self.check_bytes(data.bytes.len() as u64)?;
        let (device, dtype) = (&self.device, data.dtype);
        let tensor = B::memory_persistent_allocations(device, data, |data| {
            Tensor::from_data(data, (device, dtype))
        });
        if let Some(pieces) = &self.pieces {
            pieces.release_uploaded()?;
        }
        self.observer.mark();
        Ok(tensor)
    }

    /// A quantised matrix `[rows, columns]`, in memory of exactly its size where the way there is known: Burn's
    /// `TensorData::quantized` would leave flex with twice as much, by the growth of a vector.
    ///
    /// # Errors
    ///
    /// As [`Place::upload`].
    pub fn quantised<const D: usize>(
        &self,
        matrix: Quantised,
        shape: &[usize],
        scheme: QuantScheme,
    ) -> Result<Tensor<B, D>, Error> {
        self.check_bytes(matrix.values.len() as u64)?;
        let primitive =
            way::quantised::<B>(matrix, shape, scheme, &self.device, self.pieces.as_deref())?;
        if let Some(pieces) = &self.pieces {
            pieces.release_uploaded()?;
        }
        self.observer.mark();
        Ok(Tensor::from_primitive(TensorPrimitive::QFloat(primitive)))
    }

    /// A float tensor whose memory is a map's pages, which hold `tensor` with its strides; nothing is copied. On flex alone.
    ///
    /// # Errors
    ///
    /// If the backend has memory of its own, or the tensor does not begin at a multiple of its element's size in the file, as
    /// some writers leave it.
    pub fn view<const D: usize>(
        &self,
        tensor: &TensorRange,
        map: PrivateMap,
    ) -> Result<Tensor<B, D>, Error> {
        let element = tensor.dtype.bytes() as usize;
        if tensor
            .bytes_in_file()
            .is_none_or(|bytes| bytes > map.bytes().len() as u64)
        {
            return Err(Error::Unsupported(format!(
                "{}: `{}` is not within the pages that were mapped for it",
                tensor.file.display(),
                tensor.name
            )));
        }
        if !map.bytes().as_ptr().addr().is_multiple_of(element) {
            return Err(Error::Unsupported(format!(
                "{}: `{}` does not begin at a multiple of {element} bytes: it cannot be used where it lies",
                tensor.file.display(),
                tensor.name
            )));
        }
        way::view::<B, D>(tensor, over_map(map))
    }

    fn check_bytes(&self, bytes: u64) -> Result<(), Error> {
        match self.max_tensor_bytes().filter(|&limit| bytes > limit) {
            Some(limit) => Err(Error::TooLarge { bytes, limit }),
            None => Ok(()),
        }
    }

    /// Waits until everything that was written is on the device.
    ///
    /// # Errors
    ///
    /// If the device reports one.
    pub fn finish(&self) -> Result<(), Error> {
        let Some(pieces) = &self.pieces else {
            return Ok(());
        };
        pieces.taken()?;
        B::sync(&self.device).map_err(|error| Error::device(&self.device, error))?;
        pieces.finish()?;
        // wgpu's sync alone may return before the last writes were submitted (cubecl-wgpu 0.10).
        // CubeCL panics here where its thread could not do what it was asked for (cubecl-runtime 0.10).
        let probe = || Tensor::<B, 1>::from_data([1.0f32], &self.device).try_into_data();
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(probe)) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(Error::device(&self.device, format!("{error:?}"))),
            Err(_) => {
                let reason = "nothing can be read from it: it is out of memory, or lost";
                return Err(Error::device(&self.device, reason));
            }
        }
        Ok(())
    }
}

/// The bytes of a tensor; one that no memory holds is an error.
fn bytes_of(shape: &[usize], dtype: DType) -> Result<usize, Error> {
    let mut sizes = shape.iter();
    let elements = sizes.try_fold(1usize, |all, &size| all.checked_mul(size));
    let bytes = elements.and_then(|elements| elements.checked_mul(dtype.size()));
    bytes
        .filter(|&bytes| isize::try_from(bytes).is_ok())
        .ok_or(Error::TooLarge {
            bytes: u64::MAX,
            limit: isize::MAX as u64,
        })
}

/// Bytes of a tensor behind a piece of it.
///
/// # Panics
///
/// If the piece does not end with its tensor, or before.
#[cfg(any(feature = "cuda-unfused", feature = "wgpu-unfused"))]
fn rest_behind(tensor_bytes: u64, offset_bytes: u64, piece_bytes: usize) -> u64 {
    let end = offset_bytes.checked_add(piece_bytes as u64);
    let rest = end.and_then(|end| tensor_bytes.checked_sub(end));
    rest.expect("a piece lies within its tensor")
}

/// A tensor of a backend on its way to be filled: its memory is there, what lies in it is not.
pub struct Filling<B: Backend> {
    fill: Box<dyn Fill>,
    shape: Vec<usize>,
    dtype: DType,
    device: B::Device,
}

impl<B: Backend> Filling<B> {
    /// What is filled.
    pub fn fill(&mut self) -> &mut dyn Fill {
        &mut *self.fill
    }

    /// Bytes of the whole tensor.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }

    /// The float tensor.
    ///
    /// # Errors
    ///
    /// If the device reports an error of a piece; or the backend's type is not what it was found to be: a fault of the library's.
    pub fn into_float<const D: usize>(self) -> Result<Tensor<B, D>, Error> {
        match self.fill.finish()? {
            Finished::Host(bytes) => {
                let data = TensorData::from_bytes(bytes, self.shape, self.dtype);
                Ok(Tensor::from_data(data, (&self.device, self.dtype)))
            }
            Finished::Device(tensor) => way::float::<B, D>(tensor, self.dtype),
        }
    }

    /// The tensor of integers.
    ///
    /// # Errors
    ///
    /// As [`Filling::into_float`].
    pub fn into_int<const D: usize>(self) -> Result<Tensor<B, D, Int>, Error> {
        match self.fill.finish()? {
            Finished::Host(bytes) => {
                let data = TensorData::from_bytes(bytes, self.shape, self.dtype);
                Ok(Tensor::from_data(data, (&self.device, self.dtype)))
            }
            Finished::Device(tensor) => way::int::<B, D>(tensor),
        }
    }

    /// The tensor of booleans.
    ///
    /// # Errors
    ///
    /// As [`Filling::into_float`].
    pub fn into_bool<const D: usize>(self) -> Result<Tensor<B, D, Bool>, Error> {
        match self.fill.finish()? {
            Finished::Host(bytes) => {
                let data = TensorData::from_bytes(bytes, self.shape, self.dtype);
                Ok(Tensor::from_data(data, (&self.device, self.dtype)))
            }
            Finished::Device(tensor) => way::bool::<B, D>(tensor),
        }
    }
}

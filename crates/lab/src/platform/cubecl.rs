//! What the CubeCL platforms share.

use std::sync::Once;

use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeRuntime};
use cubecl::Runtime;
use cubecl::config::memory::{MemoryConfig, PersistentMemory};
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use meter::DeviceMemory;

use crate::Error;

/// How much of a tensor is read back at once.
const PIECE_BYTES: u64 = 16 << 20;

/// Fixes CubeCL's settings: otherwise a `cubecl.toml` or `burn.toml` in the current folder or above it,
/// or an environment variable, could change what is measured.
pub(super) fn configure() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        CubeClRuntimeConfig::set(CubeClRuntimeConfig {
            memory: MemoryConfig {
                persistent_memory: PersistentMemory::Enabled,
                ..Default::default()
            },
            ..Default::default()
        });
    });
}

pub(super) fn max_tensor_bytes<R: Runtime>(device: &R::Device) -> u64 {
    R::client(device).properties().memory.max_page_size
}

pub(super) fn memory<R: Runtime>(device: &R::Device) -> Option<DeviceMemory> {
    let usage = R::client(device).memory_usage().ok()?;
    Some(DeviceMemory {
        in_use_bytes: usage.bytes_in_use,
        reserved_bytes: usage.bytes_reserved,
    })
}

pub(super) fn device_error(device: &impl std::fmt::Debug, reason: impl ToString) -> Error {
    featherweight::Error::device(device, reason).into()
}

/// A sync, and a read-back of one small tensor: wgpu's sync alone may return before the last writes were
/// submitted (cubecl-wgpu 0.10).
pub(super) fn finish<B: super::Platform>(device: &B::Device) -> Result<(), Error> {
    B::sync(device).map_err(|error| device_error(device, format!("{error:?}")))?;
    let probe = Tensor::<B, 1>::from_data([1.0f32], device);
    let read = probe.try_into_data();
    read.map_err(|error| device_error(device, format!("{error:?}")))?;
    Ok(())
}

/// Reads the buffer itself, a range at a time.
pub(super) fn read_back<R, F, I, T>(
    tensor: Tensor<CubeBackend<R, F, I, T>, 1>,
    each: &mut dyn FnMut(&[u8]),
) -> Result<(), Error>
where
    R: CubeRuntime,
    F: burn_cubecl::FloatElement,
    I: burn_cubecl::IntElement,
    T: burn_cubecl::element::BoolElement,
{
    let tensor: CubeTensor<R> = tensor.into_primitive().tensor();
    // One dimension: contiguous, unless somebody made it a strided view.
    assert!(
        tensor.is_contiguous(),
        "only contiguous tensors are read back"
    );
    let bytes = (tensor.meta.num_elements() * tensor.elem_size()) as u64;
    let mut start = 0;
    while start < bytes {
        let end = bytes.min(start + PIECE_BYTES);
        let held = tensor.handle.size_in_used();
        let piece = tensor
            .handle
            .clone()
            .offset_start(start)
            .offset_end(held - end);
        let read = tensor.client.read_one(piece);
        each(&read.map_err(|error| device_error(&tensor.device, error))?);
        start = end;
    }
    Ok(())
}

//! NVIDIA GPUs, by the driver's own libraries, loaded at run time.

use ::cubecl::cuda::CudaRuntime;
use burn::tensor::Tensor;
use burn_cuda::{Cuda, CudaDevice};
use cudarc::driver::result as driver;
use gpt2::Gpt2;

use super::{Platform, cubecl, forward};
use crate::meter::DeviceMemory;
use crate::{Error, MemoryModel};

/// A CUDA device of this machine.
pub(crate) struct Gpu {
    pub name: String,
    pub memory_bytes: u64,
}

/// The CUDA devices, or why there are none. cudarc panics where a library is missing, so that is asked
/// first.
pub(crate) fn gpus() -> Result<Vec<Gpu>, String> {
    // SAFETY: looks a library up and opens it; nothing else runs.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err("no NVIDIA driver: libcuda was not found".to_owned());
    }
    // SAFETY: as above.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return Err(
            "the NVIDIA driver is there, but libnvrtc, which compiles kernels, was not found: \
             install the CUDA toolkit's runtime compiler"
                .to_owned(),
        );
    }
    let said = |error: driver::DriverError| format!("the NVIDIA driver says {error:?}");
    driver::init().map_err(said)?;
    let count = driver::device::get_count().map_err(said)?;
    if count == 0 {
        return Err("the NVIDIA driver finds no GPU".to_owned());
    }
    let gpu = |ordinal| {
        let device = driver::device::get(ordinal)?;
        Ok(Gpu {
            name: driver::device::get_name(device)?,
            // SAFETY: `device` was just handed out by the driver.
            memory_bytes: unsafe { driver::device::total_mem(device)? } as u64,
        })
    };
    (0..count).map(gpu).collect::<Result<_, _>>().map_err(said)
}

impl Platform for Cuda {
    const MEMORY: MemoryModel = MemoryModel::Discrete;

    fn open(index: usize) -> Result<CudaDevice, Error> {
        cubecl::configure();
        let refused = |reason| Error::Device {
            device: format!("cuda:{index}"),
            reason,
        };
        let gpus = gpus().map_err(refused)?;
        if index >= gpus.len() {
            return Err(refused(format!("there are {} CUDA devices", gpus.len())));
        }
        Ok(CudaDevice::new(index))
    }

    fn max_tensor_bytes(device: &CudaDevice) -> Option<u64> {
        Some(cubecl::max_tensor_bytes::<CudaRuntime>(device))
    }

    fn memory(device: &CudaDevice) -> Option<DeviceMemory> {
        cubecl::memory::<CudaRuntime>(device)
    }

    fn finish(device: &CudaDevice) -> Result<(), Error> {
        cubecl::finish::<Self>(device)
    }

    fn read_back(tensor: Tensor<Self, 1>, each: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        cubecl::read_back(tensor, each)
    }

    fn logits(model: &Gpt2<Self>, tokens: &[i32], device: &CudaDevice) -> Result<Vec<f32>, Error> {
        forward::logits(model, tokens, device)
    }
}

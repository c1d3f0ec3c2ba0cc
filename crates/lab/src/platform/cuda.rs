//! NVIDIA GPUs, by the driver's own libraries, loaded at run time.

use ::cubecl::cuda::CudaRuntime;
use burn::tensor::Tensor;
use burn_cubecl::CubeBackend;
use burn_cuda::CudaDevice;
use checkpoint::Dtype;
use cudarc::driver::{result as driver, sys};
use gpt2::Gpt2;
use meter::{DeviceMemory, Panics};

use super::{BringLayer, DriverView, Platform, cubecl, forward, nvml, probe, toolkit, training};
use crate::{Error, FineTuning, MemoryModel, Run, SIMULATED, Tell};

/// Never under fusion, whatever features of Burn's another crate switches on: it would make runs differ.
pub(crate) type Cuda = CubeBackend<CudaRuntime, f32, i32, u8>;

/// A CUDA device of this machine.
pub(crate) struct Gpu {
    pub name: String,
    pub memory_bytes: u64,
    /// What is free of it now, where the driver's management library is there to tell.
    pub free_bytes: Option<u64>,
    pci_bus_id: String,
}

/// CUDA 12.0: the oldest driver that this program's calls are made for (cudarc 0.19 panics at a call that the
/// driver does not know).
const OLDEST_DRIVER: i32 = 12000;

/// The CUDA devices, or why there are none.
pub(crate) fn gpus() -> Result<Vec<Gpu>, String> {
    // cudarc 0.19 panics at a call that the driver's library does not have.
    Panics::caught(look).unwrap_or_else(|message| {
        Err(format!(
            "the NVIDIA driver lacks a function, so that it cannot be used: update it, or repair its installation ({message})"
        ))
    })
}

/// That a kernel can be compiled for a GPU, and runs there.
///
/// # Errors
///
/// Why not, and what to do.
pub(crate) fn probe_gpu(index: usize) -> Result<(), String> {
    Panics::caught(|| probe::probe(index as i32)).unwrap_or_else(|message| {
        Err(format!(
            "the NVIDIA driver or libnvrtc lacks a function: {message}"
        ))
    })
}

/// cudarc panics where a library is missing, so that is asked first.
fn look() -> Result<Vec<Gpu>, String> {
    // SAFETY: looks a library up and opens it; nothing else runs.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err("no NVIDIA driver: libcuda was not found".to_owned());
    }
    toolkit::open_compiler();
    // SAFETY: as above.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return Err(
            "the NVIDIA driver is there, but libnvrtc, which compiles kernels, was not found: \
             `just setup cuda` brings it into this project; or install NVIDIA's CUDA toolkit"
                .to_owned(),
        );
    }
    let said = |error: driver::DriverError| match error.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => "the NVIDIA driver finds no GPU".to_owned(),
        code => format!("the NVIDIA driver says {code:?}"),
    };
    driver::init().map_err(said)?;
    let mut version = 0;
    // SAFETY: the driver writes one number.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(said)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the compiler's library writes two numbers.
    let told = unsafe { cudarc::nvrtc::sys::nvrtcVersion(&mut major, &mut minor) };
    if told != cudarc::nvrtc::sys::nvrtcResult::NVRTC_SUCCESS {
        return Err(format!("libnvrtc does not tell its version: {told:?}"));
    }
    check_versions(version, (major, minor))?;
    let count = driver::device::get_count().map_err(said)?;
    if count == 0 {
        return Err("the NVIDIA driver finds no GPU".to_owned());
    }
    let gpu = |ordinal| {
        let device = driver::device::get(ordinal)?;
        let pci_bus_id = pci_bus_id(device)?;
        Ok(Gpu {
            name: driver::device::get_name(device)?,
            // SAFETY: `device` was just handed out by the driver.
            memory_bytes: unsafe { driver::device::total_mem(device)? } as u64,
            free_bytes: nvml::free_bytes(&pci_bus_id),
            pci_bus_id,
        })
    };
    (0..count).map(gpu).collect::<Result<_, _>>().map_err(said)
}

/// A driver's version is 1000 × major + 10 × minor of the newest CUDA that it serves.
fn check_versions(driver: i32, nvrtc: (i32, i32)) -> Result<(), String> {
    let (major, minor) = (driver / 1000, driver % 1000 / 10);
    if driver < OLDEST_DRIVER {
        return Err(format!(
            "the NVIDIA driver is too old: it serves CUDA {major}.{minor}, and 12.0 is needed: update the driver"
        ));
    }
    if nvrtc.0 > major {
        return Err(format!(
            "the NVIDIA driver serves CUDA {major}.{minor}, and libnvrtc is of CUDA {}.{}, whose programs it cannot \
             run: update the driver, or install the libnvrtc of CUDA {major}",
            nvrtc.0, nvrtc.1
        ));
    }
    Ok(())
}

/// The device's address on its bus, as NVIDIA's libraries write it.
fn pci_bus_id(device: sys::CUdevice) -> Result<String, driver::DriverError> {
    let mut text = [0 as std::ffi::c_char; 32];
    // SAFETY: the driver writes a text of at most this length, its end included.
    unsafe { sys::cuDeviceGetPCIBusId(text.as_mut_ptr(), text.len() as i32, device) }.result()?;
    let bytes = text.iter().take_while(|&&byte| byte != 0);
    Ok(bytes.map(|&byte| byte as u8 as char).collect())
}

/// Bytes that are free, and all, of a device that this process has open.
pub(crate) fn room(index: usize) -> Option<(usize, usize)> {
    let ask = || {
        let device = driver::device::get(index as i32).ok()?;
        // SAFETY: the context is there already, and is given back.
        unsafe {
            let context = driver::primary_ctx::retain(device).ok()?;
            let told = driver::ctx::set_current(context).and_then(|()| driver::mem_get_info());
            let _ = driver::primary_ctx::release(device);
            told.ok()
        }
    };
    Panics::caught(ask).ok().flatten()
}

/// The pool that CubeCL's asynchronous allocations come from.
fn pool(device: &CudaDevice) -> Option<sys::CUmemoryPool> {
    let device = driver::device::get(device.index as i32).ok()?;
    // SAFETY: `device` was just handed out by the driver.
    unsafe { driver::device::get_default_mem_pool(device) }.ok()
}

fn read_pool(
    device: &CudaDevice,
    in_use: sys::CUmemPool_attribute,
    reserved: sys::CUmemPool_attribute,
) -> Option<DeviceMemory> {
    let pool = pool(device)?;
    let read = |attribute| {
        let mut bytes = 0u64;
        // SAFETY: the pool is the device's own, and these attributes are 64 bits wide.
        let told =
            unsafe { driver::mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()) };
        told.ok().map(|()| bytes)
    };
    Some(DeviceMemory {
        in_use_bytes: read(in_use)?,
        reserved_bytes: read(reserved)?,
    })
}

impl Platform for Cuda {
    const MEMORY: MemoryModel = MemoryModel::Discrete;
    const MULTIPLIES_IN_TF32: bool = true;

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

    fn reset_pool_peak(device: &CudaDevice) -> Option<DeviceMemory> {
        use sys::CUmemPool_attribute as Attribute;
        let pool = pool(device)?;
        for mark in [
            Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH,
            Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH,
        ] {
            let mut zero = 0u64;
            // SAFETY: the pool is the device's own, and these attributes are 64 bits wide and take 0.
            unsafe { driver::mem_pool::set_attribute(pool, mark, (&raw mut zero).cast()) }.ok()?;
        }
        read_pool(
            device,
            Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT,
            Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT,
        )
    }

    fn pool_peak(device: &CudaDevice) -> Option<DeviceMemory> {
        use sys::CUmemPool_attribute as Attribute;
        read_pool(
            device,
            Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH,
            Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH,
        )
    }

    /// bf16 came with compute capability 8.0, f16 with 5.3 (CUDA C++ Programming Guide, "Compute Capabilities"): CubeCL 0.10 takes
    /// both for granted, and its kernels do not compile.
    fn lacks(device: &CudaDevice, dtype: Dtype) -> Option<String> {
        let least = match dtype {
            Dtype::Bf16 => 80,
            Dtype::F16 => 53,
            _ => return None,
        };
        let own = driver::device::get(device.index as i32)
            .ok()
            .map(probe::capability)?
            .ok()?;
        let text = |capability: i32| format!("{}.{}", capability / 10, capability % 10);
        let reason = format!(
            "its compute capability is {}, and {} is needed",
            text(own),
            text(least)
        );
        (own < least).then_some(reason)
    }

    fn is_simulated(device: &CudaDevice) -> bool {
        let name = driver::device::get(device.index as i32).and_then(driver::device::get_name);
        name.is_ok_and(|name| name.starts_with(SIMULATED))
    }

    fn watch_driver(index: usize) -> Option<Box<dyn DriverView>> {
        let gpus = gpus().ok()?;
        let processes = nvml::Processes::watch(&gpus.get(index)?.pci_bus_id)?;
        Some(Box::new(processes))
    }

    fn finish(device: &CudaDevice) -> Result<(), Error> {
        cubecl::finish::<Self>(device)
    }

    fn read_back(tensor: Tensor<Self, 1>, each: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        cubecl::read_back(tensor, each)
    }

    fn logits(
        model: &mut Gpt2<Self>,
        tokens: &[i32],
        device: &CudaDevice,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_driver_and_a_compiler_that_is_newer_than_it_are_refused_with_what_to_do() {
        assert!(check_versions(12020, (12, 8)).is_ok());
        assert!(check_versions(13010, (12, 0)).is_ok());
        let old = check_versions(11040, (11, 8)).unwrap_err();
        assert!(
            old.contains("serves CUDA 11.4") && old.contains("update the driver"),
            "{old}"
        );
        let newer = check_versions(12040, (13, 0)).unwrap_err();
        assert!(
            newer.contains("CUDA 12.4") && newer.contains("CUDA 13.0"),
            "{newer}"
        );
    }

    #[test]
    fn without_a_driver_every_question_has_an_answer_and_none_is_a_panic() {
        if let Err(reason) = gpus() {
            assert!(!reason.is_empty());
            assert!(Cuda::watch_driver(0).is_none());
            let error = Cuda::open(0).unwrap_err().to_string();
            assert!(
                error.contains("cuda:0") && error.contains(&reason),
                "{error}"
            );
        }
    }
}

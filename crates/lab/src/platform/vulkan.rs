//! Vulkan, by wgpu: any driver, Mesa's software one included.

use burn::tensor::Tensor;
use burn_wgpu::graphics::Vulkan as VulkanApi;
use burn_wgpu::{RuntimeOptions, Vulkan, WgpuDevice, WgpuRuntime, init_setup};
use gpt2::Gpt2;
use wgpu::DeviceType;

use super::{Platform, cubecl, forward};
use crate::meter::DeviceMemory;
use crate::{Error, MemoryModel};

/// A Vulkan adapter of this machine.
pub(crate) struct Adapter {
    pub name: String,
    pub driver: String,
    pub is_software: bool,
    device: WgpuDevice,
}

/// The Vulkan adapters, in the driver loader's order.
pub(crate) fn adapters() -> Vec<Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let found = ::cubecl::future::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let (mut discrete, mut integrated, mut virtual_, mut software) = (0, 0, 0, 0);
    // CubeCL names a device by its type and its place among those of its type.
    let next = |count: &mut usize| {
        *count += 1;
        *count - 1
    };
    let adapters = found.into_iter().filter_map(|adapter| {
        let info = adapter.get_info();
        let device = match info.device_type {
            DeviceType::DiscreteGpu => WgpuDevice::DiscreteGpu(next(&mut discrete)),
            DeviceType::IntegratedGpu => WgpuDevice::IntegratedGpu(next(&mut integrated)),
            DeviceType::VirtualGpu => WgpuDevice::VirtualGpu(next(&mut virtual_)),
            // CubeCL reaches the first software device only.
            DeviceType::Cpu if next(&mut software) == 0 => WgpuDevice::Cpu,
            DeviceType::Cpu | DeviceType::Other => return None,
        };
        Some(Adapter {
            name: info.name,
            driver: format!("{} {}", info.driver, info.driver_info),
            is_software: info.device_type == DeviceType::Cpu,
            device,
        })
    });
    adapters.collect()
}

impl Platform for Vulkan {
    const MEMORY: MemoryModel = MemoryModel::Discrete;

    fn open(index: usize) -> Result<WgpuDevice, Error> {
        cubecl::configure();
        let Some(adapter) = adapters().into_iter().nth(index) else {
            return Err(Error::Device {
                device: format!("vulkan:{index}"),
                reason: "there is no such Vulkan device".to_owned(),
            });
        };
        init_setup::<VulkanApi>(&adapter.device, RuntimeOptions::default());
        Ok(adapter.device)
    }

    fn max_tensor_bytes(device: &WgpuDevice) -> Option<u64> {
        Some(cubecl::max_tensor_bytes::<WgpuRuntime>(device))
    }

    fn memory(device: &WgpuDevice) -> Option<DeviceMemory> {
        cubecl::memory::<WgpuRuntime>(device)
    }

    fn finish(device: &WgpuDevice) -> Result<(), Error> {
        cubecl::finish::<Self>(device)
    }

    fn read_back(tensor: Tensor<Self, 1>, each: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        cubecl::read_back(tensor, each)
    }

    fn logits(model: &Gpt2<Self>, tokens: &[i32], device: &WgpuDevice) -> Result<Vec<f32>, Error> {
        forward::logits(model, tokens, device)
    }

    fn compiles_in_software(device: &WgpuDevice) -> bool {
        matches!(device, WgpuDevice::Cpu)
    }
}

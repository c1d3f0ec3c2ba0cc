//! Vulkan, by wgpu: any driver, Mesa's software one included.

use burn::tensor::Tensor;
use burn_cubecl::CubeBackend;
use burn_wgpu::graphics::Vulkan as VulkanApi;
use burn_wgpu::{RuntimeOptions, WgpuDevice, WgpuRuntime, init_setup};
use gpt2::Gpt2;
use meter::DeviceMemory;
use wgpu::DeviceType;

use super::{BringLayer, Platform, cubecl, forward, training};
use crate::{Error, FineTuning, MemoryModel, Run, Tell};

/// Never under fusion, whatever features of Burn's another crate switches on: it would make runs differ.
pub(crate) type Vulkan = CubeBackend<WgpuRuntime, f32, i32, u8>;

/// A Vulkan adapter of this machine.
pub(crate) struct Adapter {
    pub name: String,
    pub driver: String,
    pub is_software: bool,
    /// Whether its memory is the host's: software's, and that of a GPU in the processor.
    pub is_in_host_memory: bool,
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
            is_in_host_memory: is_in_host_memory(&device),
            device,
        })
    });
    adapters.collect()
}

fn is_in_host_memory(device: &WgpuDevice) -> bool {
    matches!(device, WgpuDevice::Cpu | WgpuDevice::IntegratedGpu(_))
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

    fn logits(
        model: &mut Gpt2<Self>,
        tokens: &[i32],
        device: &WgpuDevice,
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

    fn bare_upload(
        device: &WgpuDevice,
        buffers_bytes: &[u64],
        piece_bytes: usize,
    ) -> Option<Result<(), Error>> {
        Some(bare_upload(device, buffers_bytes, piece_bytes))
    }

    fn is_in_host_memory(device: &WgpuDevice) -> bool {
        is_in_host_memory(device)
    }

    fn compiles_in_software(device: &WgpuDevice) -> bool {
        matches!(device, WgpuDevice::Cpu)
    }
}

/// Buffer after buffer created, and written through the queue, each piece submitted: with wgpu alone, on the same
/// adapter. The buffers stay until all are written, as a model's do.
fn bare_upload(
    device: &WgpuDevice,
    buffers_bytes: &[u64],
    piece_bytes: usize,
) -> Result<(), Error> {
    let refused = |error: &dyn std::fmt::Debug| cubecl::device_error(device, format!("{error:?}"));
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let names = adapters();
    let found = ::cubecl::future::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let own = names.iter().find(|adapter| adapter.device == *device);
    let adapter = found
        .into_iter()
        .find(|adapter| own.is_some_and(|own| own.name == adapter.get_info().name))
        .ok_or_else(|| cubecl::device_error(device, "it is not there any more"))?;
    let request = adapter.request_device(&wgpu::DeviceDescriptor {
        required_limits: adapter.limits(),
        ..Default::default()
    });
    let (bare, queue) = ::cubecl::future::block_on(request).map_err(|error| refused(&error))?;
    let piece = vec![1u8; piece_bytes];
    let mut buffers = Vec::with_capacity(buffers_bytes.len());
    for &size in buffers_bytes {
        let buffer = bare.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: size.next_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        for offset in (0..buffer.size()).step_by(piece_bytes) {
            let length = (buffer.size() - offset).min(piece_bytes as u64);
            queue.write_buffer(&buffer, offset, &piece[..length as usize]);
            queue.submit([]);
        }
        buffers.push(buffer);
    }
    let done = bare.poll(wgpu::PollType::wait_indefinitely());
    done.map(drop).map_err(|error| refused(&error))
}

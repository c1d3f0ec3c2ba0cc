//! A Vulkan device, where there is one: Mesa's software driver stands in for a GPU.

use burn_wgpu::WgpuDevice;

/// The first Vulkan device; `None`, and said so, where there is none. With `REQUIRE_VULKAN` set that is a failure.
pub fn vulkan() -> Option<WgpuDevice> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let found =
        cubecl_common::future::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let device = found
        .first()
        .map(|adapter| match adapter.get_info().device_type {
            wgpu::DeviceType::DiscreteGpu => WgpuDevice::DiscreteGpu(0),
            wgpu::DeviceType::IntegratedGpu => WgpuDevice::IntegratedGpu(0),
            wgpu::DeviceType::VirtualGpu => WgpuDevice::VirtualGpu(0),
            _ => WgpuDevice::Cpu,
        });
    if device.is_none() {
        assert!(
            std::env::var_os("REQUIRE_VULKAN").is_none(),
            "there is no Vulkan device"
        );
        eprintln!("skipped: there is no Vulkan device");
    }
    device
}

//! What is read off a driver's own words.

use lab::{SIMULATED, SOFTWARE_VULKAN};

/// Whether it is a program of the CPU that poses as a GPU, and tells nothing of one.
pub fn is_software(driver: &str) -> bool {
    let driver = driver.to_lowercase();
    let known = ["llvmpipe", "lavapipe", "swiftshader"];
    driver.starts_with("software") || known.iter().any(|name| driver.contains(name))
}

/// Whether it is a stand-in for a driver, of which no figure is published.
pub fn is_simulated(driver: &str) -> bool {
    driver.starts_with(SIMULATED)
}

/// What a device is called beside its figures: `flex`, `cuda`, `software Vulkan: llvmpipe`.
pub fn device_name(device: &str, driver: Option<&str>) -> String {
    let driver = match driver {
        None if device.starts_with("vulkan") => return format!("{device}, driver unknown"),
        Some(driver) if is_simulated(driver) => return format!("{SIMULATED}{device}"),
        Some(driver) if is_software(driver) => driver,
        _ => return device.to_owned(),
    };
    let name = driver.strip_prefix(SOFTWARE_VULKAN).unwrap_or(driver);
    let name = name.split(['(', ',']).next().unwrap_or(name).trim();
    format!("{SOFTWARE_VULKAN}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_of_the_cpu_is_told_from_that_of_a_gpu() {
        let software = [
            "llvmpipe (LLVM 15.0.6, 256 bits), llvmpipe Mesa 22.3.6 (LLVM 15.0.6)",
            "software Vulkan: llvmpipe (LLVM 15.0.6, 256 bits), Mesa 22.3.6",
            "Lavapipe",
            "SwiftShader Device (Subzero)",
        ];
        assert!(software.into_iter().all(is_software));
        let hardware = ["NVIDIA H200, 143771 MiB", "AMD Radeon RX 7900 (RADV), Mesa"];
        assert!(!hardware.into_iter().any(is_software));
        for driver in &software[..2] {
            assert_eq!(
                device_name("vulkan", Some(driver)),
                "software Vulkan: llvmpipe"
            );
        }
        assert_eq!(device_name("vulkan", Some(hardware[0])), "vulkan");
        assert_eq!(device_name("flex", None), "flex");
        assert_eq!(device_name("vulkan", None), "vulkan, driver unknown");
        let simulated = "simulated GPU, sm_80, 8192 MiB";
        assert!(is_simulated(simulated) && !is_simulated(hardware[0]));
        assert_eq!(device_name("cuda", Some(simulated)), "simulated cuda");
    }
}

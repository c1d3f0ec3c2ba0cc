//! Devices by name, and which of them this machine has.

use std::fmt;
use std::str::FromStr;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use meter::Panics;

use crate::MemoryModel;

/// A Burn backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendKind {
    /// Pure Rust on the CPU; needs nothing.
    Flex,
    /// Any Vulkan driver.
    Vulkan,
    /// NVIDIA's driver.
    Cuda,
}

impl BackendKind {
    /// Every backend, compiled in or not.
    pub const ALL: [BackendKind; 3] = [BackendKind::Flex, BackendKind::Vulkan, BackendKind::Cuda];

    /// The name on the command line, in manifests and in records.
    pub const fn name(self) -> &'static str {
        match self {
            BackendKind::Flex => "flex",
            BackendKind::Vulkan => "vulkan",
            BackendKind::Cuda => "cuda",
        }
    }

    /// Whose memory its tensors lie in.
    pub const fn memory_model(self) -> MemoryModel {
        match self {
            BackendKind::Flex => MemoryModel::Unified,
            BackendKind::Vulkan | BackendKind::Cuda => MemoryModel::Discrete,
        }
    }
}

/// A device: a backend, and which of its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceSpec {
    /// The backend.
    pub backend: BackendKind,
    /// Its number among the backend's devices.
    pub index: usize,
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.backend.name())?;
        match self.index {
            0 => Ok(()),
            index => write!(f, ":{index}"),
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, index) = text.split_once(':').unwrap_or((text, "0"));
        let backend = BackendKind::ALL
            .into_iter()
            .find(|backend| backend.name() == name);
        match (backend, index.parse()) {
            (Some(backend), Ok(index)) => Ok(DeviceSpec { backend, index }),
            _ => Err(format!(
                "unknown device `{text}`: use auto, flex, vulkan, cuda, or vulkan:N or cuda:N"
            )),
        }
    }
}

/// A device that a person could ask for: usable, or why not.
#[derive(Debug, Clone)]
pub struct DeviceReport {
    /// Its name.
    pub spec: DeviceSpec,
    /// What it is, or why it cannot be used.
    pub state: Result<String, String>,
    /// Whether it computes on the CPU.
    pub is_software: bool,
    /// Whether its memory lies in the host's RAM, and so counts against it.
    pub is_in_host_memory: bool,
    /// What is free of its own memory, where its driver tells before it is opened.
    pub free_bytes: Option<u64>,
}

impl DeviceReport {
    /// Whether it is the CPU posing as a GPU.
    pub fn poses_as_gpu(&self) -> bool {
        self.is_software && self.spec.backend != BackendKind::Flex
    }

    /// What it is, and what drives it, for records; a CPU that poses as a GPU is called software. `None` where it cannot be
    /// used.
    pub fn driver(&self) -> Option<&str> {
        self.state.as_deref().ok()
    }
}

/// What the driver of a CPU that poses as a GPU begins with, in records.
pub const SOFTWARE_VULKAN: &str = "software Vulkan: ";

/// What a simulated device's driver calls it by, in records: a stand-in for tests. No figure of it is ever published.
pub const SIMULATED: &str = "simulated ";

/// Looks for the devices of every backend. A backend without any appears once, with the reason.
pub fn find_devices() -> Vec<DeviceReport> {
    let mut devices = vec![DeviceReport {
        spec: DeviceSpec {
            backend: BackendKind::Flex,
            index: 0,
        },
        state: Ok("Burn's pure-Rust CPU backend".to_owned()),
        is_software: true,
        is_in_host_memory: true,
        free_bytes: None,
    }];
    devices.extend(look(BackendKind::Vulkan, find_vulkan, PATIENCE));
    devices.extend(look(BackendKind::Cuda, find_cuda, PATIENCE));
    devices
}

/// A driver that has not answered by then hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a search finds. One that panics, as those do where a driver's library lacks a function, or that does not end, makes the
/// backend unusable and nothing else.
fn look(
    backend: BackendKind,
    find: fn() -> Vec<DeviceReport>,
    patience: Duration,
) -> Vec<DeviceReport> {
    let (found, answer) = sync_channel(1);
    // Whoever calls into a driver that hangs stays there.
    let searching = std::thread::Builder::new().spawn(move || {
        let _ = found.send(Panics::caught(find));
    });
    if let Err(error) = searching {
        return unusable(backend, format!("its driver cannot be asked: {error}"));
    }
    match answer.recv_timeout(patience) {
        Ok(Ok(devices)) => devices,
        Ok(Err(message)) => unusable(backend, format!("its driver cannot be used: {message}")),
        Err(_) => {
            let seconds = patience.as_secs();
            let reason =
                format!("its driver, or a device, has not answered within {seconds} s: it hangs");
            unusable(backend, reason)
        }
    }
}

fn unusable(backend: BackendKind, reason: impl Into<String>) -> Vec<DeviceReport> {
    vec![DeviceReport {
        spec: DeviceSpec { backend, index: 0 },
        state: Err(reason.into()),
        is_software: false,
        is_in_host_memory: false,
        free_bytes: None,
    }]
}

#[cfg(feature = "vulkan")]
fn find_vulkan() -> Vec<DeviceReport> {
    let adapters = crate::platform::vulkan::adapters();
    if adapters.is_empty() {
        let reason = "no Vulkan driver was found (a software one: Debian's mesa-vulkan-drivers)";
        return unusable(BackendKind::Vulkan, reason);
    }
    let report = |(index, adapter): (usize, crate::platform::vulkan::Adapter)| DeviceReport {
        spec: DeviceSpec {
            backend: BackendKind::Vulkan,
            index,
        },
        state: Ok(format!(
            "{}{}, {}{}",
            if adapter.is_software {
                SOFTWARE_VULKAN
            } else {
                ""
            },
            adapter.name,
            adapter.driver,
            // A GPU in the processor.
            match adapter.is_in_host_memory && !adapter.is_software {
                true => ", its memory is the host's",
                false => "",
            }
        )),
        is_software: adapter.is_software,
        is_in_host_memory: adapter.is_in_host_memory,
        free_bytes: None,
    };
    adapters.into_iter().enumerate().map(report).collect()
}

#[cfg(not(feature = "vulkan"))]
fn find_vulkan() -> Vec<DeviceReport> {
    unusable(BackendKind::Vulkan, "this program was built without it")
}

/// Has this process, and those that it starts, use the CUDA toolkit in `folder`, where there is one and the machine has none.
///
/// # Safety
///
/// No other thread may run: the environment is written.
pub unsafe fn offer_cuda_toolkit(folder: &std::path::Path) {
    #[cfg(feature = "cuda")]
    // SAFETY: the caller's.
    unsafe {
        crate::platform::toolkit::offer(folder);
    }
    let _ = folder;
}

#[cfg(feature = "cuda")]
fn find_cuda() -> Vec<DeviceReport> {
    let gpus = match crate::platform::cuda::gpus() {
        Ok(gpus) => gpus,
        Err(reason) => return unusable(BackendKind::Cuda, reason),
    };
    let report = |(index, gpu): (usize, crate::platform::cuda::Gpu)| DeviceReport {
        spec: DeviceSpec {
            backend: BackendKind::Cuda,
            index,
        },
        state: crate::platform::cuda::probe_gpu(index)
            .map(|()| format!("{}, {} MiB", gpu.name, gpu.memory_bytes >> 20)),
        is_software: false,
        is_in_host_memory: false,
        free_bytes: gpu.free_bytes,
    };
    gpus.into_iter().enumerate().map(report).collect()
}

#[cfg(not(feature = "cuda"))]
fn find_cuda() -> Vec<DeviceReport> {
    unusable(BackendKind::Cuda, "this program was built without it")
}

/// What a device has room for, where its driver tells, and the device is open.
pub(crate) fn room(device: DeviceSpec) -> Option<String> {
    #[cfg(feature = "cuda")]
    if device.backend == BackendKind::Cuda {
        let (free, all) = crate::platform::cuda::room(device.index)?;
        return Some(format!("{free} of {device}'s {all} bytes are free"));
    }
    let _ = device;
    None
}

/// What is done on the backend that a run asks for.
pub(crate) trait OnBackend {
    type Output;

    fn on<B: crate::Platform>(self) -> Result<Self::Output, crate::Error>;
}

/// Has it done there.
pub(crate) fn dispatch<J: OnBackend>(
    device: DeviceSpec,
    job: J,
) -> Result<J::Output, crate::Error> {
    match device.backend {
        BackendKind::Flex => job.on::<crate::Host>(),
        #[cfg(feature = "vulkan")]
        BackendKind::Vulkan => job.on::<crate::platform::vulkan::Vulkan>(),
        #[cfg(feature = "cuda")]
        BackendKind::Cuda => job.on::<crate::platform::cuda::Cuda>(),
        #[allow(unreachable_patterns)]
        _ => Err(crate::Error::Device {
            device: device.to_string(),
            reason: "this program was built without it".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_survives_being_printed_and_parsed() {
        for text in ["flex", "vulkan", "cuda", "cuda:3"] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_unknown_device_is_refused_with_the_known_ones() {
        for text in ["gpu", "cuda:", "cuda:x", ""] {
            let error = text.parse::<DeviceSpec>().unwrap_err();
            assert!(error.contains("vulkan:N"), "{error}");
        }
    }

    #[test]
    fn a_search_that_panics_makes_its_backend_unusable_and_says_why() {
        let found = look(BackendKind::Cuda, || panic!("no symbol cuFly"), PATIENCE);
        assert_eq!(found.len(), 1);
        let reason = found[0].state.as_ref().unwrap_err();
        assert!(reason.contains("no symbol cuFly"), "{reason}");
    }

    #[test]
    fn a_driver_that_hangs_makes_its_backend_unusable_and_says_so() {
        let hangs = || loop {
            std::thread::park();
        };
        let found = look(BackendKind::Cuda, hangs, Duration::from_millis(50));
        let reason = found[0].state.as_ref().unwrap_err();
        assert!(reason.contains("it hangs"), "{reason}");
    }

    #[test]
    fn every_backend_is_reported_and_flex_is_usable() {
        let devices = find_devices();
        for backend in BackendKind::ALL {
            assert!(devices.iter().any(|device| device.spec.backend == backend));
        }
        assert!(devices[0].state.is_ok());
    }
}

//! NVIDIA's management library: what the driver holds for each process. Loaded at run time; where it is not
//! there, or does not tell, nothing is told.

use std::sync::Arc;

use meter::ReadBytes;
use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;

use super::DriverView;

/// The processes of one GPU. The library numbers processes as the host does, which in a container are not the
/// numbers that the processes know: so this one is the one that comes when its device is opened.
pub(super) struct Processes {
    nvml: Arc<Nvml>,
    pci_bus_id: String,
    before: Vec<u32>,
    own: Option<u32>,
}

impl Processes {
    /// Looks before the device is opened. By its bus, for CUDA and the library may number GPUs differently.
    pub fn watch(pci_bus_id: &str) -> Option<Processes> {
        let nvml = Arc::new(Nvml::init().ok()?);
        let mut processes = Processes {
            nvml,
            pci_bus_id: pci_bus_id.to_owned(),
            before: Vec::new(),
            own: None,
        };
        let before = used_by_process(&processes.nvml, pci_bus_id)?;
        processes.before = before.into_iter().map(|(process, _)| process).collect();
        Some(processes)
    }
}

impl DriverView for Processes {
    fn read_own(&mut self) -> Option<ReadBytes> {
        let now = used_by_process(&self.nvml, &self.pci_bus_id)?;
        let known = std::process::id();
        let mut new = now
            .iter()
            .filter(|(process, _)| !self.before.contains(process));
        let own = match now.iter().find(|(process, _)| *process == known) {
            Some(own) => own,
            // Of several that came at once nobody can say which is this one.
            None => new.next().filter(|_| new.next().is_none())?,
        };
        let (own, at_first) = (own.0, own.1?);
        self.own = Some(own);
        let (library, bus) = (Arc::clone(&self.nvml), self.pci_bus_id.clone());
        Some(Box::new(move || {
            let now = used_by_process(&library, &bus)?;
            let (_, bytes) = now.into_iter().find(|(process, _)| *process == own)?;
            Some(bytes?.saturating_sub(at_first))
        }))
    }

    fn others(&self) -> Option<u64> {
        let now = used_by_process(&self.nvml, &self.pci_bus_id)?;
        let is_other = |process: &u32| match self.own {
            Some(own) => *process != own,
            None => self.before.contains(process),
        };
        let others = now.into_iter().filter(|(process, _)| is_other(process));
        Some(others.count() as u64)
    }
}

/// Each process that computes on the GPU, with its bytes where the driver tells them.
fn used_by_process(library: &Nvml, pci_bus_id: &str) -> Option<Vec<(u32, Option<u64>)>> {
    let device = library.device_by_pci_bus_id(pci_bus_id).ok()?;
    let processes = device.running_compute_processes().ok()?;
    let used = processes.into_iter().map(|process| {
        let bytes = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        (process.pid, bytes)
    });
    Some(used.collect())
}

/// Free memory of the GPU, without opening it.
pub(super) fn free_bytes(pci_bus_id: &str) -> Option<u64> {
    let library = Nvml::init().ok()?;
    let device = library.device_by_pci_bus_id(pci_bus_id).ok()?;
    Some(device.memory_info().ok()?.free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_library_nothing_is_told_and_nothing_panics() {
        if Nvml::init().is_ok() {
            return;
        }
        assert!(Processes::watch("00000000:01:00.0").is_none());
        assert!(free_bytes("00000000:01:00.0").is_none());
    }
}

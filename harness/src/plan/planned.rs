//! One run that is to be made: what tells it apart, what it will take, and what keeps it from being made.

use checkpoint::{Dtype, Format};
use gpt2::Size;
use lab::{Contract, DeviceReport, Footprint, MemoryModel, Tuned, Tuning};
use meter::CacheState;

use crate::configuration::Code;
use crate::driver::device_name;
use crate::host_cap::HostCap;
use crate::manifest::Manifest;
use crate::technique::Technique;
use crate::units;

/// One run that is to be made.
#[derive(Clone)]
pub struct Planned {
    pub technique: Technique,
    pub size: Size,
    pub device: DeviceReport,
    pub dtype: Dtype,
    pub cache: CacheState,
    pub host_cap: HostCap,
    pub tuning: Tuning,
    pub repeat: u32,
    /// Runs forward on a device whose kernels are compiled in software: once per device, size and dtype.
    pub forward_in_software: bool,
}

impl Planned {
    /// Unique among all manifests, and the same whenever the same code plans the same run of the same manifest.
    pub fn id(&self, manifest: &Manifest, code: &Code) -> String {
        let device = self.device.spec.to_string().replace(':', "");
        let cap = match self.host_cap {
            HostCap::None => String::new(),
            cap => format!("_cap{cap}"),
        };
        let commit = code.commit.as_ref();
        let commit = commit.map_or(String::new(), |commit| format!("_{commit:.7}"));
        let dirty = if code.dirty == Some(true) {
            "-dirty"
        } else {
            ""
        };
        let name = self.technique.name().replace(':', "-");
        let tuned = self.tuned();
        let tuned = match tuned == Tuned::default() || self.tuning == Tuning::default() {
            true => String::new(),
            false => format!("_{}", tuned.to_string().replace([' ', '='], "-")),
        };
        // A manifest's name and the begin of its digest: two of them plan runs of the same configuration.
        format!(
            "{name}_{}_{device}_{}_{}{cap}{tuned}_{}_{}-{:.6}{commit}{dirty}",
            self.size, self.dtype, self.cache, self.repeat, manifest.name, manifest.digest
        )
    }

    /// What a person reads while it runs.
    pub fn label(&self) -> String {
        let (name, size) = (self.technique.name(), self.size);
        let device = device_name(&self.device.spec.to_string(), self.device.driver());
        let cap = match self.host_cap {
            HostCap::None => String::new(),
            cap => format!(" cap {cap}"),
        };
        let (dtype, cache, repeat) = (self.dtype, self.cache, self.repeat);
        format!("{name} {size} {device} {dtype} {cache}{cap} #{repeat}")
    }

    /// The host cap, where there is one.
    pub fn host_cap_bytes(&self) -> Option<u64> {
        self.host_cap.bytes(self.footprint().model_bytes)
    }

    /// The checkpoint's format that this run reads, where it reads one.
    pub fn format(&self, state_dict: Format) -> Option<Format> {
        self.technique.format(state_dict)
    }

    /// The model's footprint. The device's limit is not known before it is opened; the whole tensor is an
    /// upper bound of a shard.
    pub fn footprint(&self) -> Footprint {
        let footprint = Footprint::new(&self.size.config(), self.dtype, None, self.tuning);
        footprint.on(self.device.spec.backend)
    }

    /// What of the tuning it heeds.
    pub fn tuned(&self) -> Tuned {
        self.tuning.of(self.technique.tuned_by())
    }

    /// Whether the experiment makes sense on this device, for this dtype; the reason where it does not.
    pub fn applies(&self) -> Result<(), &'static str> {
        self.technique.applies(self.memory_model(), self.dtype)
    }

    /// Whose memory the device has.
    pub fn memory_model(&self) -> MemoryModel {
        self.device.spec.backend.memory_model()
    }

    /// The peak that this run is expected to put into the host's RAM, by its contract: on a software device
    /// the device's share lies there too.
    pub fn predicted_ram_bytes(&self) -> u64 {
        let Some(contract) = self.contract() else {
            // Of a command of somebody else's nothing is known; the plainest load holds the model twice.
            return 2 * self.footprint().model_bytes;
        };
        let device = contract
            .device_bytes
            .filter(|_| self.device.is_in_host_memory);
        contract.host_heap_bytes + device.unwrap_or(0)
    }

    /// The peaks that it promises, where it promises any.
    pub fn contract(&self) -> Option<Contract> {
        self.technique
            .contract(self.memory_model(), self.footprint())
    }

    /// Why it would not be run; `None` where it would.
    pub fn obstacle(&self, available_ram_bytes: Option<u64>) -> Option<String> {
        if let Err(reason) = &self.device.state {
            return Some(format!(
                "device {} cannot be used: {reason}",
                self.device.spec
            ));
        }
        if let Err(reason) = self.applies() {
            return Some(reason.to_owned());
        }
        let on_device = self.contract().and_then(|contract| contract.device_bytes);
        if let (Some(predicted), Some(free)) = (on_device, self.device.free_bytes)
            && predicted > free
        {
            let [predicted, free] = [predicted, free].map(units::bytes);
            let device = self.device.spec;
            return Some(format!(
                "its predicted device peak of {predicted} is over the {free} that are free on {device}"
            ));
        }
        // Under a cap it is ended before it takes more.
        let cap = self.host_cap_bytes().unwrap_or(u64::MAX);
        let predicted = self.predicted_ram_bytes().min(cap);
        let available = available_ram_bytes?;
        (predicted > available).then(|| {
            let [predicted, available] = [predicted, available].map(units::bytes);
            format!("its predicted peak of {predicted} is over the {available} of memory available")
        })
    }
}

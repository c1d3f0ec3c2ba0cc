//! From the manifest to the list of runs.

use std::collections::HashSet;

use checkpoint::{Dtype, Format};
use gpt2::Size;
use lab::{BackendKind, CacheState, Contract, DeviceReport, Footprint, MemoryModel, Tuning};

use crate::configuration::Code;
use crate::host_cap::HostCap;
use crate::manifest::{Devices, HostCaps, Manifest, Order};
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
    /// Unique within a folder of results, and the same whenever the same code plans the same run.
    pub fn id(&self, code: &Code) -> String {
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
        let tuning = self
            .tuning_words()
            .filter(|_| self.tuning != Tuning::default());
        let tuning = tuning.map_or(String::new(), |words| {
            format!("_{}", words.replace([' ', '='], "-"))
        });
        format!(
            "{name}_{}_{device}_{}_{}{cap}{tuning}_{}{commit}{dirty}",
            self.size, self.dtype, self.cache, self.repeat
        )
    }

    /// What a person reads while it runs.
    pub fn label(&self) -> String {
        let (name, size, device) = (self.technique.name(), self.size, self.device.spec);
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
        Footprint::new(&self.size.config(), self.dtype, None, self.tuning)
    }

    /// What of the tuning it heeds, for records.
    pub fn tuning_words(&self) -> Option<String> {
        self.tuning.describe(self.technique.tuned_by())
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

/// The runs of a manifest, in the order they are made. Interleaved, every repeat is a pass over the whole
/// matrix, small sizes first: what drifts on the machine falls on all techniques alike, results come early,
/// and a time budget that runs out costs the last repeats only.
pub fn plan(manifest: &Manifest, found: &[DeviceReport]) -> Vec<Planned> {
    let devices = devices(&manifest.devices, found);
    let mut sizes = manifest.sizes.clone();
    sizes.sort_by_key(|size| size.config().parameters());
    let mut random = fastrand::Rng::with_seed(manifest.seed);
    let mut runs = Vec::new();
    for repeat in 1..=manifest.repeats {
        for &size in &sizes {
            let mut of_size = matrix_of(manifest, size, &devices, repeat);
            if manifest.order == Order::Interleaved {
                random.shuffle(&mut of_size);
            }
            runs.append(&mut of_size);
        }
    }
    if manifest.order == Order::Grouped {
        let place = |run: &Planned| crate::registry::position(run.technique.name());
        runs.sort_by_key(|run| (run.size.config().parameters(), run.device.spec, place(run)));
    }
    leave_out_inapplicable(&mut runs);
    let mut forwarded = HashSet::new();
    let is_free = |run: &Planned| run.host_cap == HostCap::None;
    let any_is_free = runs.iter().any(is_free);
    for run in &mut runs {
        let is_ours = matches!(run.technique, Technique::Ours(_));
        let loads = is_ours && !run.technique.reads_nothing() && !run.technique.is_floor();
        // Compiling takes memory, too: not under a cap, if there are runs without.
        let may = loads && (is_free(run) || !any_is_free);
        // Other weights than the checkpoint's compute other logits: each of them once.
        let kept = run.technique.keeps(run.memory_model(), run.dtype);
        run.forward_in_software =
            may && forwarded.insert((run.device.spec, run.size, run.dtype, kept));
    }
    runs
}

/// What makes no sense on a device or for a dtype is left out, if the experiment is run on another: only what
/// would not be run at all becomes a row that says why.
fn leave_out_inapplicable(runs: &mut Vec<Planned>) {
    let applicable: HashSet<String> = runs
        .iter()
        .filter(|run| run.applies().is_ok())
        .map(|run| run.technique.name().to_owned())
        .collect();
    runs.retain(|run| run.applies().is_ok() || !applicable.contains(run.technique.name()));
}

/// One repeat of everything that is to be run at one size.
fn matrix_of(
    manifest: &Manifest,
    size: Size,
    devices: &[DeviceReport],
    repeat: u32,
) -> Vec<Planned> {
    let poses_as_gpu =
        |device: &&DeviceReport| device.is_software && device.spec.backend != BackendKind::Flex;
    let is_wanted = |device: &&DeviceReport| match &manifest.software_sizes {
        Some(sizes) if poses_as_gpu(device) => sizes.contains(&size),
        _ => true,
    };
    // A search for the smallest cap begins with a run without one.
    let host_caps = match &manifest.host_caps {
        HostCaps::These(caps) => caps,
        HostCaps::Smallest => &vec![HostCap::None],
    };
    let mut runs = Vec::new();
    for device in devices.iter().filter(is_wanted) {
        for &dtype in &manifest.dtypes {
            for &cache in &manifest.cache_states {
                for &host_cap in host_caps {
                    let spec = device.spec;
                    runs.extend(manifest.techniques_on(spec, size).map(|technique| Planned {
                        technique,
                        size,
                        device: device.clone(),
                        dtype,
                        cache,
                        host_cap,
                        tuning: manifest.tuning,
                        repeat,
                        forward_in_software: false,
                    }));
                }
            }
        }
    }
    runs
}

fn devices(wanted: &Devices, found: &[DeviceReport]) -> Vec<DeviceReport> {
    match wanted {
        Devices::Auto => found
            .iter()
            .filter(|device| device.state.is_ok())
            .cloned()
            .collect(),
        Devices::These(specs) => specs
            .iter()
            .map(|&spec| {
                let known = found.iter().find(|device| device.spec == spec).cloned();
                known.unwrap_or_else(|| DeviceReport {
                    spec,
                    state: Err(format!("this machine has no device {spec}")),
                    is_software: false,
                    is_in_host_memory: false,
                    free_bytes: None,
                })
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain ones, that apply everywhere.
    const PLAIN: usize = 4;

    fn manifest(text: &str) -> Manifest {
        let plain = "['init-only', 'naive', 'mmap-assign', 'per-tensor']";
        let text = format!("[matrix]\nexperiments = {plain}\n{text}\n");
        Manifest::parse("test".to_owned(), "test.toml", &text).unwrap()
    }

    fn found() -> Vec<DeviceReport> {
        let report = |name: &str, state| DeviceReport {
            spec: name.parse().unwrap(),
            state,
            is_software: true,
            is_in_host_memory: true,
            free_bytes: None,
        };
        vec![
            report("flex", Ok("a CPU".to_owned())),
            report("vulkan", Ok("a CPU that poses as a GPU".to_owned())),
            report("cuda", Err("no driver".to_owned())),
        ]
    }

    #[test]
    fn auto_runs_on_what_is_usable_and_a_device_asked_for_is_a_row_all_the_same() {
        let auto = plan(&manifest("sizes = ['small']\nrepeats = 1"), &found());
        assert!(auto.iter().all(|run| run.device.state.is_ok()));
        let asked = plan(
            &manifest("sizes = ['small']\ndevices = ['cuda', 'cuda:7']"),
            &found(),
        );
        assert!(asked[0].obstacle(None).unwrap().contains("no d"));
        assert_eq!(asked.len(), 2 * 3 * PLAIN);
    }

    #[test]
    fn a_plan_is_the_same_every_time_and_every_run_has_an_id_of_its_own() {
        let manifest = manifest("sizes = ['medium', 'small']");
        let ids = |runs: Vec<Planned>| {
            let ids = runs.iter().map(|run| run.id(&code(None)));
            ids.collect::<Vec<_>>()
        };
        let (first, second) = (
            ids(plan(&manifest, &found())),
            ids(plan(&manifest, &found())),
        );
        assert_eq!(first, second);
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), first.len());
        assert!(first[0].contains("small"), "small sizes come first");
    }

    fn code(commit: Option<&str>) -> Code {
        Code {
            commit: commit.map(str::to_owned),
            dirty: commit.map(|_| true),
        }
    }

    #[test]
    fn an_id_names_the_cap_and_the_code_so_that_no_run_takes_anothers_place() {
        let text = "sizes = ['small']\ndevices = ['flex']\nhost_caps = ['none', '1.5x', '512MiB']";
        let runs = plan(&manifest(text), &found());
        let naive: Vec<_> = runs
            .iter()
            .filter(|run| run.technique.name() == "naive" && run.repeat == 1)
            .collect();
        let mut ids: Vec<_> = naive.iter().map(|run| run.id(&code(None))).collect();
        ids.sort();
        assert_eq!(
            ids,
            [
                "naive_small_flex_f32_warm_1",
                "naive_small_flex_f32_warm_cap1.5x_1",
                "naive_small_flex_f32_warm_cap512MiB_1"
            ]
        );
        let id = naive[0].id(&code(Some("0123456789ab")));
        assert!(id.ends_with("_1_0123456-dirty"), "{id}");
    }

    #[test]
    fn repeats_are_interleaved_and_each_is_complete() {
        let runs = plan(&manifest("sizes = ['small']\ndevices = ['flex']"), &found());
        let repeats: Vec<_> = runs.iter().map(|run| run.repeat).collect();
        assert!(repeats.is_sorted());
        let all = PLAIN;
        let first: HashSet<_> = runs[..all].iter().map(|run| run.technique.name()).collect();
        assert_eq!(first.len(), all);
    }

    #[test]
    fn a_cpu_that_poses_as_a_gpu_is_spared_the_sizes_it_is_not_meant_for() {
        let text = "sizes = ['small', 'large']\nsoftware_sizes = ['small']\nrepeats = 1";
        let runs = plan(&manifest(text), &found());
        let large: HashSet<_> = runs
            .iter()
            .filter(|run| run.size == Size::Large)
            .collect::<Vec<_>>()
            .iter()
            .map(|run| run.device.spec.to_string())
            .collect();
        assert_eq!(large, HashSet::from(["flex".to_owned()]));
        assert_eq!(runs.len(), 3 * PLAIN);
    }

    #[test]
    fn forward_runs_once_on_each_device_size_and_dtype_that_compiles_in_software() {
        let runs = plan(&manifest("sizes = ['small', 'medium']"), &found());
        let forward = runs.iter().filter(|run| run.forward_in_software);
        assert_eq!(forward.count(), 2 * 2);
    }

    #[test]
    fn weights_that_are_other_ones_once_loaded_compute_their_own_logits() {
        let text =
            "[matrix]\nexperiments = ['naive', 'streamed', 'half', 'quantized']\nsizes = ['small']";
        let manifest = Manifest::parse("test".to_owned(), "test.toml", text).unwrap();
        let runs = plan(&manifest, &found());
        let on_vulkan = runs
            .iter()
            .filter(|run| run.forward_in_software && run.device.spec.to_string() == "vulkan");
        assert_eq!(on_vulkan.count(), 3);
    }

    #[test]
    fn what_makes_no_sense_somewhere_is_left_out_there_and_is_a_row_where_it_would_be_nowhere() {
        let planned = |devices: &str| {
            let text = format!(
                "[matrix]\nexperiments = ['mmap-zero-copy']\nsizes = ['small']\ndevices = {devices}\nrepeats = 1"
            );
            let manifest = Manifest::parse("test".to_owned(), "test.toml", &text).unwrap();
            plan(&manifest, &found())
        };
        let both = planned("['flex', 'vulkan']");
        assert_eq!(both.len(), 1);
        assert_eq!(both[0].device.spec.to_string(), "flex");
        let nowhere = planned("['vulkan']");
        assert!(
            nowhere[0]
                .obstacle(None)
                .unwrap()
                .contains("memory of its own")
        );
    }

    #[test]
    fn a_run_that_cannot_fit_is_refused_with_the_numbers() {
        let runs = plan(&manifest("sizes = ['xl']\ndevices = ['flex']"), &found());
        let naive = runs
            .iter()
            .find(|run| run.technique.name() == "naive")
            .unwrap();
        assert!(naive.obstacle(Some(12 << 30)).unwrap().contains("12.2 GiB"));
        assert!(naive.obstacle(Some(64 << 30)).is_none());
        let capped = Planned {
            host_cap: HostCap::Bytes(1 << 30),
            ..naive.clone()
        };
        assert!(
            capped.obstacle(Some(12 << 30)).is_none(),
            "it is ended before"
        );
    }

    #[test]
    fn a_run_that_the_device_has_no_room_for_is_refused_with_the_numbers() {
        let runs = plan(&manifest("sizes = ['xl']\ndevices = ['vulkan']"), &found());
        let mut naive = runs
            .into_iter()
            .find(|run| run.technique.name() == "naive")
            .unwrap();
        naive.device.free_bytes = Some(8 << 30);
        let obstacle = naive.obstacle(Some(64 << 30)).unwrap();
        assert!(
            obstacle.contains("8.00 GiB that are free on vulkan"),
            "{obstacle}"
        );
        naive.device.free_bytes = Some(13 << 30);
        assert!(naive.obstacle(Some(64 << 30)).is_none());
    }
}

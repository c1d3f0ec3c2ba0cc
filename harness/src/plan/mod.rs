//! From the manifest to the list of runs.

mod planned;

use std::collections::HashSet;

use gpt2::Size;
use lab::DeviceReport;

use crate::host_cap::HostCap;
use crate::manifest::{Devices, HostCaps, Manifest, Order};
use crate::technique::Technique;
pub use planned::Planned;

/// More runs than anybody waits for.
const MOST_RUNS: u64 = 100_000;

/// That its list of runs is one that can be made.
///
/// # Errors
///
/// How many runs it would be.
pub fn check_size(manifest: &Manifest, found: &[DeviceReport]) -> Result<(), String> {
    let repeats: u64 = manifest
        .sizes
        .iter()
        .map(|&size| u64::from(manifest.repeats_at(size)))
        .sum();
    let host_caps = match &manifest.host_caps {
        HostCaps::These(caps) => caps.len(),
        HostCaps::Smallest => 1,
    };
    let of_each = [
        devices(&manifest.devices, found).len(),
        manifest.dtypes.len(),
        manifest.cache_states.len(),
        host_caps,
        manifest.names().len(),
    ];
    let runs = of_each
        .iter()
        .fold(repeats, |runs, &count| runs.saturating_mul(count as u64));
    match runs > MOST_RUNS {
        true => Err(format!(
            "{} asks for {runs} runs: {MOST_RUNS} are the most",
            manifest.name
        )),
        false => Ok(()),
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
    let most = sizes.iter().map(|&size| manifest.repeats_at(size)).max();
    for repeat in 1..=most.unwrap_or(manifest.repeats) {
        let sizes = sizes.iter();
        for &size in sizes.filter(|&&size| repeat <= manifest.repeats_at(size)) {
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
        let loads = is_ours && !run.technique.reads_nothing() && !run.technique.is_yardstick();
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
    let is_wanted = |device: &&DeviceReport| match &manifest.software_sizes {
        Some(sizes) if device.poses_as_gpu() => sizes.contains(&size),
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
    use crate::configuration::Code;

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
            let ids = runs.iter().map(|run| run.id(&manifest, &code(None)));
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
        let manifest = manifest(text);
        let runs = plan(&manifest, &found());
        let naive: Vec<_> = runs
            .iter()
            .filter(|run| run.technique.name() == "naive" && run.repeat == 1)
            .collect();
        let mut ids: Vec<_> = naive
            .iter()
            .map(|run| run.id(&manifest, &code(None)))
            .collect();
        ids.sort();
        let of = format!("test-{:.6}", manifest.digest);
        assert_eq!(
            ids,
            [
                format!("naive_small_flex_f32_warm_1_{of}"),
                format!("naive_small_flex_f32_warm_cap1.5x_1_{of}"),
                format!("naive_small_flex_f32_warm_cap512MiB_1_{of}"),
            ]
        );
        let id = naive[0].id(&manifest, &code(Some("0123456789ab")));
        assert!(id.ends_with(&format!("_1_{of}_0123456-dirty")), "{id}");
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
    fn a_size_can_have_fewer_repeats() {
        let text = "sizes = ['small', 'xl']\ndevices = ['flex']\nrepeats_of = { xl = 1 }";
        let runs = plan(&manifest(text), &found());
        let of = |size| runs.iter().filter(|run| run.size == size).count();
        assert_eq!((of(Size::Small), of(Size::Xl)), (3 * PLAIN, PLAIN));
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

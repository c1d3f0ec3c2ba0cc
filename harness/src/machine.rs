//! What machine this is, and what of it is free.

use std::collections::BTreeMap;
use std::path::Path;

use lab::DeviceReport;
use meter::HostCaps;
use serde::Serialize;

use crate::checkout;
use crate::configuration::Code;

/// Versions of the crates that decide what is measured, and of the compiler.
pub const VERSIONS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/versions.rs"));

/// The machine, as written to `machine.toml` before the first run.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub machine: String,
    pub os: String,
    pub kernel: Option<String>,
    pub cpu: Option<String>,
    pub logical_cores: usize,
    pub memory_bytes: Option<u64>,
    pub disk_free_bytes: Option<u64>,
    /// What enforces host caps here, and what counts against them.
    pub host_caps: String,
    pub devices: BTreeMap<String, String>,
    pub versions: BTreeMap<&'static str, &'static str>,
}

impl Machine {
    /// Looks around. `name` overrides the detected name.
    pub fn detect(
        name: Option<&str>,
        devices: &[DeviceReport],
        checkpoints: &Path,
        caps: &HostCaps,
    ) -> Machine {
        let cpu = proc_field("/proc/cpuinfo", "model name");
        let memory_bytes = memory("MemTotal:");
        let logical_cores = std::thread::available_parallelism().map_or(1, usize::from);
        let described = devices.iter().map(|device| {
            let state = match &device.state {
                Ok(what) => what.clone(),
                Err(reason) => format!("not usable: {reason}"),
            };
            (device.spec.to_string(), state)
        });
        let gpu = devices
            .iter()
            .find(|device| !device.is_software && device.state.is_ok());
        let gpu = gpu.and_then(|device| device.state.as_deref().ok());
        let detected = match gpu {
            // `NVIDIA H200, 143771 MiB`: the name.
            Some(gpu) => slug(gpu.split(',').next().unwrap_or(gpu)),
            None => {
                let cpu = cpu.as_deref().unwrap_or(std::env::consts::ARCH);
                let gib = memory_bytes.map_or(0, |bytes| bytes.div_ceil(1 << 30));
                format!("{}-{logical_cores}c-{gib}g", slug(cpu))
            }
        };
        Machine {
            machine: name
                .map(slug)
                .filter(|name| !name.is_empty())
                .unwrap_or(detected),
            os: os(),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            cpu,
            logical_cores,
            memory_bytes,
            disk_free_bytes: crate::checkpoints::free_disk_bytes(checkpoints),
            host_caps: describe_caps(caps),
            devices: described.collect(),
            versions: VERSIONS.iter().copied().collect(),
        }
    }
}

/// What loads in this program: `burn 0.21.0`.
pub fn framework() -> String {
    let version = VERSIONS.iter().find(|(name, _)| *name == "burn");
    format!("burn {}", version.map_or("", |(_, version)| version))
}

/// What enforces host caps, and what it counts.
pub fn describe_caps(caps: &HostCaps) -> String {
    match (caps, caps.mechanism()) {
        (HostCaps::Unavailable(reason), _) => (*reason).to_owned(),
        (_, Some(mechanism)) => format!("{mechanism}: {}", mechanism.counts()),
        (_, None) => "none".to_owned(),
    }
}

/// Memory that a new process can use without swapping, by the kernel's estimate.
pub fn available_memory_bytes() -> Option<u64> {
    memory("MemAvailable:")
}

fn memory(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn proc_field(path: &str, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn first_line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.lines().next()?.to_owned())
}

fn os() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    match name {
        Some(name) => format!("{} {}", name.trim_matches('"'), std::env::consts::ARCH),
        None => format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    }
}

/// Lower case, digits and single hyphens; without the words that say nothing.
fn slug(text: &str) -> String {
    let words = text.to_lowercase().replace("(r)", " ").replace("(tm)", " ");
    let words = words.split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| !["", "cpu", "processor", "with", "at"].contains(word));
    words.collect::<Vec<_>>().join("-")
}

/// Version and commit of this program: `0.1.0 (8c9cd50ab)`.
pub const VERSION: &str = env!("HARNESS_VERSION");

/// The commit that is checked out here, and whether what runs differs from it: sources that were changed, or a program that
/// was built from others. Results and plots are no sources. Neither is known outside a checkout.
pub fn code() -> Code {
    let (commit, dirty) = commit().unzip();
    Code { commit, dirty }
}

fn commit() -> Option<(String, bool)> {
    let root = checkout::root()?;
    let git = |args: &[&str]| {
        let (is_good, said) = checkout::git(&root, args).ok()??;
        is_good.then_some(said)
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let short = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&[
        "status",
        "--porcelain",
        "--",
        ":/",
        ":(top,exclude)results",
        ":(top,exclude)plots",
    ])?;
    let built_of_it = option_env!("HARNESS_COMMIT") == Some(&*commit)
        && option_env!("HARNESS_DIRTY") == Some("false");
    Some((short, !changed.is_empty() || !built_of_it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_names_fit_into_paths() {
        assert_eq!(
            slug("Intel(R) Xeon(R) Platinum 8581C CPU @ 2.10GHz"),
            "intel-xeon-platinum-8581c-2-10ghz"
        );
        assert_eq!(slug("NVIDIA H200"), "nvidia-h200");
        assert_eq!(slug("../../etc"), "etc");
    }
}

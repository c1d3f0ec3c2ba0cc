//! Host caps: the kernel keeps a run within an amount of memory.
//!
//! ```text
//! harness                                  worker
//! HostCaps::detect()
//! caps.new_cgroup() ── folder ──▶ Cgroup::join()           before anything else is allocated
//!                                 HostLimits::impose()     behind the set-up: the baseline, and the cap on top
//! Cgroup::oom_kills() ◀────────── killed, or done
//! ```
//!
//! | mechanism | who may | counts | does not count |
//! | --- | --- | --- | --- |
//! | cgroup v2, v1 | root, or an owner of the cgroup | every touched page, file pages and the driver's included; file pages are taken back first | what is reserved and never touched |
//! | `RLIMIT_DATA` | anyone | private writable memory when it is asked for, touched or not | file pages, shared memory |

mod cgroup;
mod mechanism;

use std::path::PathBuf;

pub use cgroup::{Cgroup, CgroupPeak};
pub use mechanism::CapMechanism;

/// A host cap that is not enforced.
#[derive(Debug, thiserror::Error)]
#[error("the host cap of {cap_bytes} bytes cannot be enforced: {reason}")]
pub struct HostCapError {
    /// Above the baseline.
    pub cap_bytes: u64,
    /// What the kernel answered.
    pub reason: String,
}

/// The best mechanism of this machine.
#[derive(Debug)]
pub enum HostCaps {
    /// Cgroups can be made in this folder.
    Cgroups(CapMechanism, PathBuf),
    /// Without the right to make cgroups.
    DataLimit,
    /// Not on this system.
    Unavailable(&'static str),
}

impl HostCaps {
    /// Finds it, by making a cgroup, moving a process into it, and removing it again. What harnesses that were killed left behind is
    /// removed, too.
    pub fn detect() -> HostCaps {
        if !cfg!(target_os = "linux") {
            return HostCaps::Unavailable("host caps are enforced on Linux only");
        }
        for (mechanism, parent) in cgroup::parents() {
            cgroup::remove_abandoned(&parent);
            let probe = Cgroup::make(mechanism, &parent, "probe");
            if probe.is_ok_and(|probe| probe.limit(1 << 40).is_ok() && probe.takes_processes()) {
                return HostCaps::Cgroups(mechanism, parent);
            }
        }
        HostCaps::DataLimit
    }

    /// What enforces a cap, where one can be enforced.
    pub fn mechanism(&self) -> Option<CapMechanism> {
        match self {
            HostCaps::Cgroups(mechanism, _) => Some(*mechanism),
            HostCaps::DataLimit => Some(CapMechanism::DataLimit),
            HostCaps::Unavailable(_) => None,
        }
    }

    /// A cgroup for one run, gone when it is dropped; `None` where there are none.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to make one.
    pub fn new_cgroup(&self) -> std::io::Result<Option<Cgroup>> {
        match self {
            HostCaps::Cgroups(mechanism, parent) => {
                Cgroup::make(*mechanism, parent, "run").map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// What a worker may use of the host's memory.
#[derive(Debug, Default)]
pub struct HostLimits {
    /// The run's own cgroup, where it has one.
    pub cgroup: Option<Cgroup>,
    /// Bytes above the baseline.
    pub cap_bytes: Option<u64>,
}

impl HostLimits {
    /// Sets the cap on top of what is used now. It stays until the process ends: a model that loads under a
    /// cap must be usable under it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn impose(&self) -> Result<(), HostCapError> {
        let Some(cap_bytes) = self.cap_bytes else {
            return Ok(());
        };
        let refused = |reason: String| HostCapError { cap_bytes, reason };
        match &self.cgroup {
            Some(cgroup) => cgroup.cap(cap_bytes).map_err(refused),
            None => limit_data(cap_bytes).map_err(refused),
        }
    }
}

#[cfg(target_os = "linux")]
fn limit_data(cap_bytes: u64) -> Result<(), String> {
    use crate::process::ProcessMemory;
    use rustix::process::{Resource, Rlimit, setrlimit};
    let used = ProcessMemory::now().ok_or("its usage cannot be read")?;
    let limit = Some(used.data_bytes + cap_bytes);
    let limits = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(Resource::Data, limits).map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
fn limit_data(_: u64) -> Result<(), String> {
    Err("host caps are enforced on Linux only".to_owned())
}

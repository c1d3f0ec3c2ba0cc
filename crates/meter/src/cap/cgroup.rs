//! A cgroup for a run: made by the harness, entered by the worker.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::mechanism::CapMechanism;

/// What a cgroup that belongs to a run is called, before the harness's process id.
const PREFIX: &str = "featherweight-";

/// A cgroup with a memory controller, for the processes of one run.
#[derive(Debug)]
pub struct Cgroup {
    mechanism: CapMechanism,
    folder: PathBuf,
    is_owned: bool,
}

/// The names of a controller's files.
struct Files {
    usage: &'static str,
    peak: &'static str,
    limit: &'static str,
    swap_limit: &'static str,
    events: &'static str,
}

impl Cgroup {
    pub(super) fn make(
        mechanism: CapMechanism,
        parent: &Path,
        what: &str,
    ) -> std::io::Result<Cgroup> {
        use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Relaxed));
        let folder = parent.join(format!("{PREFIX}{process}-{what}-{count}"));
        std::fs::create_dir(&folder)?;
        Ok(Cgroup {
            mechanism,
            folder,
            is_owned: true,
        })
    }

    /// The one in this folder, made by another process, which removes it.
    pub fn in_folder(folder: &Path) -> Cgroup {
        let is_v2 = folder.join("memory.max").exists();
        let mechanism = match is_v2 {
            true => CapMechanism::CgroupV2,
            false => CapMechanism::CgroupV1,
        };
        Cgroup {
            mechanism,
            folder: folder.to_owned(),
            is_owned: false,
        }
    }

    /// Where it is in the file system.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Moves this process into it: from here on, what it touches first is counted there.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn join(&self) -> std::io::Result<()> {
        self.take(std::process::id())
    }

    /// Moves another process into it, as [`Cgroup::join`] does this one.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, or the process is gone.
    pub fn take(&self, pid: u32) -> std::io::Result<()> {
        std::fs::write(self.folder.join("cgroup.procs"), pid.to_string())
    }

    /// Bytes counted now.
    pub fn usage_bytes(&self) -> Option<u64> {
        self.read(self.files().usage)?.trim().parse().ok()
    }

    /// Starts the high-water mark over; `None` where the kernel cannot (cgroup v2 before Linux 6.12).
    pub fn reset_peak(&self) -> Option<CgroupPeak> {
        let path = self.folder.join(self.files().peak);
        let mut file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        // cgroup v2 takes any word, and keeps a mark for this open file.
        file.write_all(b"0").ok()?;
        Some(CgroupPeak { file })
    }

    /// Processes of the group that the kernel killed because its limit was reached.
    pub fn oom_kills(&self) -> Option<u64> {
        let events = self.read(self.files().events)?;
        let line = events
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "))?;
        line.trim().parse().ok()
    }

    /// Whether this user may move processes here: tried with one that waits for input and is ended.
    pub(super) fn takes_processes(&self) -> bool {
        use std::process::{Command, Stdio};
        let waiting = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let Ok(mut waiting) = waiting else {
            return false;
        };
        let moved = self.take(waiting.id());
        let _ = waiting.kill();
        let _ = waiting.wait();
        moved.is_ok()
    }

    /// Lets its processes use this much more than now.
    ///
    /// # Errors
    ///
    /// What keeps the kernel from it.
    pub fn cap(&self, cap_bytes: u64) -> Result<(), String> {
        let usage = self.usage_bytes().ok_or("its usage cannot be read")?;
        let limited = self.limit(usage + cap_bytes);
        limited.map_err(|error| error.to_string())
    }

    /// Lets it hold no more than this, swap included.
    pub(super) fn limit(&self, bytes: u64) -> std::io::Result<()> {
        let files = self.files();
        std::fs::write(self.folder.join(files.limit), bytes.to_string())?;
        // Without swap: what does not fit must end the run, not slow it down.
        let swap = self.folder.join(files.swap_limit);
        match self.mechanism {
            _ if !swap.exists() => {
                let swappiness = self.folder.join("memory.swappiness");
                if swappiness.exists() {
                    std::fs::write(swappiness, "0")?;
                }
                Ok(())
            }
            CapMechanism::CgroupV2 => std::fs::write(swap, "0"),
            _ => std::fs::write(swap, bytes.to_string()),
        }
    }

    fn read(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.join(file)).ok()
    }

    fn files(&self) -> Files {
        match self.mechanism {
            CapMechanism::CgroupV2 => Files {
                usage: "memory.current",
                peak: "memory.peak",
                limit: "memory.max",
                swap_limit: "memory.swap.max",
                events: "memory.events",
            },
            _ => Files {
                usage: "memory.usage_in_bytes",
                peak: "memory.max_usage_in_bytes",
                limit: "memory.limit_in_bytes",
                swap_limit: "memory.memsw.limit_in_bytes",
                events: "memory.oom_control",
            },
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel may take a moment to let go of a process that has ended.
        for _ in 0..20 {
            if !self.is_owned || std::fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// A high-water mark of a cgroup since it was reset.
pub struct CgroupPeak {
    file: File,
}

impl CgroupPeak {
    /// Reads it.
    pub fn bytes(&mut self) -> Option<u64> {
        let mut text = String::new();
        self.file.rewind().ok()?;
        self.file.read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }
}

/// Folders in which cgroups with a memory controller may be made: this process's own and those above it,
/// v2 before v1.
#[cfg(target_os = "linux")]
pub(super) fn parents() -> Vec<(CapMechanism, PathBuf)> {
    let Ok(me) = procfs::process::Process::myself() else {
        return Vec::new();
    };
    let (Ok(cgroups), Ok(mounts)) = (me.cgroups(), me.mountinfo()) else {
        return Vec::new();
    };
    let mut parents = Vec::new();
    for mechanism in [CapMechanism::CgroupV2, CapMechanism::CgroupV1] {
        let is_v2 = mechanism == CapMechanism::CgroupV2;
        let has_memory = |controllers: &[String]| controllers.iter().any(|name| name == "memory");
        let own = cgroups.0.iter().find(|cgroup| match is_v2 {
            true => cgroup.hierarchy == 0,
            false => has_memory(&cgroup.controllers),
        });
        let mount = mounts.0.iter().find(|mount| match is_v2 {
            true => mount.fs_type == "cgroup2",
            false => mount.fs_type == "cgroup" && mount.super_options.contains_key("memory"),
        });
        let (Some(own), Some(mount)) = (own, mount) else {
            continue;
        };
        // In a container the mount may show a part of the hierarchy only.
        let path = own.pathname.strip_prefix(&mount.root);
        let path = path.unwrap_or(&own.pathname).trim_start_matches('/');
        let folder = mount.mount_point.join(path);
        let above = folder
            .ancestors()
            .take_while(|folder| folder.starts_with(&mount.mount_point));
        parents.extend(above.map(|folder| (mechanism, folder.to_owned())));
    }
    parents
}

#[cfg(not(target_os = "linux"))]
pub(super) fn parents() -> Vec<(CapMechanism, PathBuf)> {
    Vec::new()
}

/// Removes the cgroups of processes that are no more.
pub(super) fn remove_abandoned(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let process = rest.and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Refused where processes are in it.
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_harnesses_left_is_removed_and_what_living_ones_use_is_kept() {
        let parent = tempfile::tempdir().unwrap();
        // No process has this number: they end at 2^22.
        let abandoned = parent.path().join(format!("{PREFIX}99999999-run-0"));
        let used = parent
            .path()
            .join(format!("{PREFIX}{}-run-0", std::process::id()));
        let foreign = parent.path().join("system.slice");
        for folder in [&abandoned, &used, &foreign] {
            std::fs::create_dir(folder).unwrap();
        }
        remove_abandoned(parent.path());
        assert!(!abandoned.exists());
        assert!(used.exists() && foreign.exists());
    }
}

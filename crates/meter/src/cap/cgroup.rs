//! A cgroup for a run: made by the harness, entered by the worker.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::mechanism::CapMechanism;

/// What a cgroup that belongs to a run is called, before the harness that made it.
const PREFIX: &str = "featherweight-";

/// The kernel may take a moment to let go of a process that has ended.
const GRACE: Duration = Duration::from_secs(2);

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
        let owner = Owner::this().ok_or_else(|| std::io::Error::other("/proc cannot be read"))?;
        let count = COUNT.fetch_add(1, Relaxed);
        let folder = parent.join(format!("{}-{what}-{count}", owner.prefix()));
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
        if self.is_owned {
            remove(&self.folder);
        }
    }
}

/// Ends what is left in a cgroup and in those below it, and removes them.
fn remove(folder: &Path) {
    let deadline = Instant::now() + GRACE;
    loop {
        let below = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            remove(&entry.path());
        }
        if std::fs::remove_dir(folder).is_ok() || !folder.exists() || Instant::now() > deadline {
            return;
        }
        end_processes(folder);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills the processes of a cgroup.
#[cfg(target_os = "linux")]
fn end_processes(folder: &Path) {
    use rustix::process::{Pid, Signal, kill_process};

    // One word for all of them, since Linux 5.14 in cgroup v2.
    if std::fs::OpenOptions::new()
        .write(true)
        .open(folder.join("cgroup.kill"))
        .and_then(|mut file| file.write_all(b"1"))
        .is_ok()
    {
        return;
    }
    let processes = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    // Those of other namespaces are told as 0.
    let processes = processes.lines().filter_map(|line| line.parse().ok());
    for process in processes.filter_map(Pid::from_raw) {
        let _ = kill_process(process, Signal::KILL);
    }
}

#[cfg(not(target_os = "linux"))]
fn end_processes(_: &Path) {}

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

/// Who makes a cgroup. A process's number is used again when it has ended, and means another process in another namespace.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    namespace: u64,
    process: i32,
    /// In ticks since the machine was started.
    started: u64,
}

#[cfg(target_os = "linux")]
impl Owner {
    fn of(process: &procfs::process::Process) -> Option<Owner> {
        let namespaces = process.namespaces().ok()?;
        let namespace = namespaces.0.get(std::ffi::OsStr::new("pid"))?;
        Some(Owner {
            namespace: namespace.identifier,
            process: process.pid,
            started: process.stat().ok()?.starttime,
        })
    }

    fn this() -> Option<Owner> {
        Owner::of(&procfs::process::Process::myself().ok()?)
    }

    /// Whether it has ended; `None` where this process cannot know, for it is of another namespace.
    fn is_gone(&self) -> Option<bool> {
        if Owner::this()?.namespace != self.namespace {
            return None;
        }
        let Ok(process) = procfs::process::Process::new(self.process) else {
            return Some(true);
        };
        // Its namespaces are not to be seen of another user's.
        let stat = process.stat().ok()?;
        let has_ended = matches!(stat.state(), Ok(procfs::process::ProcState::Zombie));
        Some(has_ended || stat.starttime != self.started)
    }
}

#[cfg(not(target_os = "linux"))]
impl Owner {
    fn this() -> Option<Owner> {
        None
    }

    fn is_gone(&self) -> Option<bool> {
        None
    }
}

impl Owner {
    fn prefix(&self) -> String {
        let Owner {
            namespace,
            process,
            started,
        } = self;
        format!("{PREFIX}{namespace}-{process}-{started}")
    }

    /// Whose a cgroup of this name is.
    fn named(name: &str) -> Option<Owner> {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        Some(Owner {
            namespace: parts.next()?.parse().ok()?,
            process: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
        })
    }
}

/// Removes the cgroups of processes that are no more, with what still runs in them.
pub(super) fn remove_abandoned(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(Owner::named);
        if owner.and_then(|owner| owner.is_gone()) == Some(true) {
            remove(&entry.path());
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_killed_harnesses_left_is_removed_and_what_living_ones_use_is_kept() {
        let parent = tempfile::tempdir().unwrap();
        let this = || Owner::this().unwrap();
        let folder = |owner: Owner| parent.path().join(format!("{}-run-0", owner.prefix()));
        let used = folder(this());
        // No process has this number: they end at 2^22.
        let abandoned = folder(Owner {
            process: 99_999_999,
            ..this()
        });
        let of_a_former_process = folder(Owner {
            started: this().started - 1,
            ..this()
        });
        let elsewhere = folder(Owner {
            namespace: this().namespace + 1,
            process: 99_999_999,
            ..this()
        });
        let foreign = parent.path().join("system.slice");
        for folder in [
            &abandoned,
            &of_a_former_process,
            &used,
            &elsewhere,
            &foreign,
        ] {
            std::fs::create_dir(folder).unwrap();
        }
        remove_abandoned(parent.path());
        assert!(!abandoned.exists() && !of_a_former_process.exists());
        assert!(used.exists() && elsewhere.exists() && foreign.exists());
    }
}

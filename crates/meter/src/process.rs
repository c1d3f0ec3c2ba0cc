//! What the kernel says of a process. Linux; elsewhere nothing can be told, and nothing is.

use std::fs::File;
use std::io::{Read, Seek, Write};

/// Which process is asked about: a folder of `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// This one.
    Own,
    /// The one with this number.
    Other(u32),
}

impl Process {
    fn file(self, name: &str) -> String {
        match self {
            Process::Own => format!("/proc/self/{name}"),
            Process::Other(pid) => format!("/proc/{pid}/{name}"),
        }
    }
}

/// A process's memory, from `/proc/<pid>/status`, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Resident set (`VmRSS`).
    pub rss_bytes: u64,
    /// Its high-water mark (`VmHWM`).
    pub rss_peak_bytes: u64,
    /// Anonymous pages (`RssAnon`).
    pub anon_bytes: u64,
    /// Pages of mapped files (`RssFile`).
    pub file_bytes: u64,
    /// Shared memory (`RssShmem`): where a software Vulkan driver keeps its buffers.
    pub shared_bytes: u64,
    /// Pages in swap (`VmSwap`).
    pub swap_bytes: u64,
    /// Private writable memory, touched or not (`VmData`): what `RLIMIT_DATA` limits.
    pub data_bytes: u64,
}

impl ProcessMemory {
    /// Reads this process's now.
    pub fn now() -> Option<ProcessMemory> {
        ProcessMemory::of(Process::Own)
    }

    /// Reads a process's now.
    pub fn of(process: Process) -> Option<ProcessMemory> {
        Reader::open(process)?.read()
    }

    /// The larger of each measure.
    pub(crate) fn highest(self, other: ProcessMemory) -> ProcessMemory {
        ProcessMemory {
            rss_bytes: self.rss_bytes.max(other.rss_bytes),
            rss_peak_bytes: self.rss_peak_bytes.max(other.rss_peak_bytes),
            anon_bytes: self.anon_bytes.max(other.anon_bytes),
            file_bytes: self.file_bytes.max(other.file_bytes),
            shared_bytes: self.shared_bytes.max(other.shared_bytes),
            swap_bytes: self.swap_bytes.max(other.swap_bytes),
            data_bytes: self.data_bytes.max(other.data_bytes),
        }
    }

    /// Starts the high-water mark of the resident set over from its present value. Says whether the
    /// kernel did so.
    pub fn reset_peak(process: Process) -> bool {
        // The mark that belongs to exec'ed children's `ru_maxrss` is another one, and not used here.
        let file = File::options().write(true).open(process.file("clear_refs"));
        file.and_then(|mut file| file.write_all(b"5")).is_ok()
    }

    /// Bytes that the process's read calls have returned so far (`rchar` of `/proc/<pid>/io`).
    pub fn bytes_read(process: Process) -> Option<u64> {
        let text = std::fs::read_to_string(process.file("io")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("rchar:"))?;
        line.trim().parse().ok()
    }

    /// Page faults of the process so far that had to read from a disk.
    #[cfg(target_os = "linux")]
    pub fn major_faults(process: Process) -> Option<u64> {
        let found = match process {
            Process::Own => procfs::process::Process::myself(),
            Process::Other(pid) => procfs::process::Process::new(pid as i32),
        };
        Some(found.ok()?.stat().ok()?.majflt)
    }

    /// Not known on this system.
    #[cfg(not(target_os = "linux"))]
    pub fn major_faults(_: Process) -> Option<u64> {
        None
    }
}

/// Reads a process's `status` again and again, without allocating.
pub(crate) struct Reader {
    file: File,
    buffer: [u8; 4096],
}

impl Reader {
    pub fn open(process: Process) -> Option<Reader> {
        let file = File::open(process.file("status")).ok()?;
        Some(Reader {
            file,
            buffer: [0; 4096],
        })
    }

    pub fn read(&mut self) -> Option<ProcessMemory> {
        self.file.rewind().ok()?;
        let length = self.file.read(&mut self.buffer).ok()?;
        parse(&self.buffer[..length])
    }
}

fn parse(status: &[u8]) -> Option<ProcessMemory> {
    let status = std::str::from_utf8(status).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes * 1024)
    };
    Some(ProcessMemory {
        rss_bytes: field("VmRSS:")?,
        rss_peak_bytes: field("VmHWM:")?,
        anon_bytes: field("RssAnon:")?,
        file_bytes: field("RssFile:")?,
        shared_bytes: field("RssShmem:")?,
        swap_bytes: field("VmSwap:")?,
        data_bytes: field("VmData:")?,
    })
}

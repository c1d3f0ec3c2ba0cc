//! The checkpoint's state in the page cache before a run.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whether the checkpoint lies in the page cache before a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheState {
    /// At least 99 % of its pages.
    Warm,
    /// At most 1 % of its pages.
    Cold,
}

/// Why a state of the page cache was not established.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The page cache could not be brought into the wanted state.
    #[error(
        "the checkpoint could not be made {wanted}: {:.1} % of it is in the page cache{why}",
        100.0 * resident_fraction
    )]
    NotReached {
        /// The state asked for.
        wanted: CacheState,
        /// How much of the checkpoint is in the page cache.
        resident_fraction: f64,
        /// What keeps it from that state, where that is known.
        why: &'static str,
    },
    /// A file, or the folder that it lies in, cannot be read.
    #[error("{}: cannot be read: {answer}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system answered. It stands in the message, and so is no source.
        answer: std::io::Error,
    },
    /// This system drops no pages when asked.
    #[error("a cold cache can be had on Linux only")]
    NoColdCache,
}

impl CacheState {
    /// Every state.
    pub const ALL: [CacheState; 2] = [CacheState::Warm, CacheState::Cold];

    fn is_reached(self, resident_fraction: f64) -> bool {
        match self {
            CacheState::Warm => resident_fraction >= 0.99,
            CacheState::Cold => resident_fraction <= 0.01,
        }
    }

    /// Brings the checkpoint at `path` into this state, and returns the resident fraction measured
    /// afterwards (`None` where the platform cannot tell).
    ///
    /// Where `is_capped`, the pages leave the cache first: those that this process then reads count against
    /// its cap, as they would on a machine of that size, and not against whoever read them before.
    ///
    /// # Errors
    ///
    /// If the files cannot be read, or the state is not reached.
    pub fn establish(self, path: &Path, is_capped: bool) -> Result<Option<f64>, CacheError> {
        // The kernel may take pages back, or not yet have let go of them, while the last ones are read.
        const TRIES: u32 = 5;
        let files = files_of(path)?;
        let mut fraction = None;
        if is_capped && self == CacheState::Warm {
            files.iter().try_for_each(|file| drop_pages(file))?;
        }
        for _ in 0..TRIES {
            for file in &files {
                match self {
                    CacheState::Warm => read_through(file)?,
                    CacheState::Cold => drop_pages(file)?,
                }
            }
            fraction = resident_fraction(&files)?;
            if fraction.is_none_or(|fraction| self.is_reached(fraction)) {
                return Ok(fraction);
            }
        }
        Err(CacheError::NotReached {
            wanted: self,
            resident_fraction: fraction.unwrap_or_default(),
            why: match self {
                CacheState::Warm if is_capped => {
                    ", for its pages count against the host cap: use cold"
                }
                CacheState::Warm if is_memory_short(&files) => ", for memory is short",
                CacheState::Warm => {
                    ": its file system keeps nothing there, or lets go of it at once (FUSE and network file systems may)"
                }
                CacheState::Cold => {
                    ": a process has it mapped, or its file system has no disk behind it (tmpfs)"
                }
            },
        })
    }
}

impl fmt::Display for CacheState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CacheState::Warm => "warm",
            CacheState::Cold => "cold",
        })
    }
}

impl FromStr for CacheState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = CacheState::ALL
            .into_iter()
            .find(|state| state.to_string() == text);
        known.ok_or_else(|| format!("unknown cache state `{text}`: use warm or cold"))
    }
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> CacheError {
    move |answer| CacheError::Unreadable {
        path: path.to_owned(),
        answer,
    }
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, CacheError> {
    // An index stands for the files beside it.
    let is_index = path.to_string_lossy().ends_with(".index.json");
    let folder = match (path.is_dir(), path.parent()) {
        (true, _) => path,
        (false, Some(parent)) if is_index => parent,
        (false, _) => return Ok(vec![path.to_owned()]),
    };
    let entries = std::fs::read_dir(folder).map_err(unreadable(folder))?;
    let entries = entries.map(|entry| entry.map(|entry| entry.path()));
    let files = entries.filter(|path| path.as_ref().map_or(true, |path| path.is_file()));
    files.collect::<Result<_, _>>().map_err(unreadable(folder))
}

/// Whether the kernel could keep less than the files have, whatever it let go of for them.
#[cfg(target_os = "linux")]
fn is_memory_short(files: &[PathBuf]) -> bool {
    use procfs::Current;
    let lengths = files.iter().filter_map(|path| path.metadata().ok());
    let bytes: u64 = lengths.map(|about| about.len()).sum();
    let memory = procfs::Meminfo::current().ok();
    let available = memory.and_then(|memory| memory.mem_available);
    available.is_none_or(|available| available < bytes)
}

#[cfg(not(target_os = "linux"))]
fn is_memory_short(_: &[PathBuf]) -> bool {
    true
}

fn read_through(path: &Path) -> Result<(), CacheError> {
    let mut file = File::open(path).map_err(unreadable(path))?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer).map_err(unreadable(path))? > 0 {}
    Ok(())
}

/// Clean pages that nobody maps leave the cache; dirty ones are written first.
#[cfg(target_os = "linux")]
fn drop_pages(path: &Path) -> Result<(), CacheError> {
    let file = File::open(path).map_err(unreadable(path))?;
    let _ = file.sync_all();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
        .map_err(|error| unreadable(path)(error.into()))
}

#[cfg(not(target_os = "linux"))]
fn drop_pages(_: &Path) -> Result<(), CacheError> {
    Err(CacheError::NoColdCache)
}

/// The fraction of the files' pages that are in the page cache.
#[cfg(target_os = "linux")]
fn resident_fraction(files: &[PathBuf]) -> Result<Option<f64>, CacheError> {
    let page_bytes = rustix::param::page_size();
    let (mut resident, mut all) = (0usize, 0usize);
    for path in files {
        let file = File::open(path).map_err(unreadable(path))?;
        // SAFETY: no byte of the map is touched; only its pages are counted.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(unreadable(path))?;
        let mut pages = vec![0u8; map.len().div_ceil(page_bytes)];
        // SAFETY: the range is that of the map, which lives, and `pages` has a byte for each of its pages.
        let answer =
            unsafe { libc::mincore(map.as_ptr() as *mut _, map.len(), pages.as_mut_ptr()) };
        if answer != 0 {
            return Err(unreadable(path)(std::io::Error::last_os_error()));
        }
        resident += pages.iter().filter(|&&page| page & 1 == 1).count();
        all += pages.len();
    }
    Ok((all > 0).then(|| resident as f64 / all as f64))
}

#[cfg(not(target_os = "linux"))]
fn resident_fraction(_: &[PathBuf]) -> Result<Option<f64>, CacheError> {
    Ok(None)
}

//! Temporary files, in a folder of this process's own below the system's. It goes with the process; what a killed one has left is
//! removed by the next.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tempfile::{NamedTempFile, TempDir};

use crate::atomic;

const PREFIX: &str = "featherweight-";
/// Held by whoever's folder it is in.
const LOCK: &str = ".lock";

struct Scratch {
    folder: TempDir,
    _lock: File,
}

static SCRATCH: Mutex<Option<Scratch>> = Mutex::new(None);

/// A new temporary file, which nobody else can read. It is removed when it is dropped.
pub fn file() -> std::io::Result<NamedTempFile> {
    let mut scratch = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = match &mut *scratch {
        Some(scratch) => scratch,
        none => {
            let folder = std::env::temp_dir();
            let made = Scratch::new(&folder).map_err(|error| {
                let folder = folder.display();
                let reason = format!(
                    "no temporary files can be made in {folder} ({error}): name a folder where they can with TMPDIR"
                );
                std::io::Error::new(error.kind(), reason)
            });
            none.insert(made?)
        }
    };
    NamedTempFile::new_in(scratch.folder.path())
}

/// Removes the folder: the program ends.
pub fn clear() {
    let mut scratch = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner);
    scratch.take();
}

impl Scratch {
    fn new(parent: &Path) -> std::io::Result<Scratch> {
        remove_left(parent);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let mut lock = atomic::open_in_place(&folder.path().join(LOCK))?;
        lock.lock()?;
        // From here on others can tell that it is held.
        lock.write_all(b"held\n")?;
        Ok(Scratch {
            folder,
            _lock: lock,
        })
    }
}

/// Removes folders of processes that are gone. Another user's, and what another user has put there, are left alone.
fn remove_left(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && name.to_string_lossy().starts_with(PREFIX) && is_left(&entry.path()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn is_left(folder: &Path) -> bool {
    let path = folder.join(LOCK);
    if !is_own(folder) || !path.is_file() {
        return false;
    }
    let Ok(mut lock) = atomic::open_in_place(&path) else {
        return false;
    };
    let mut said = Vec::new();
    let is_said = Read::by_ref(&mut lock).take(16).read_to_end(&mut said);
    is_said.is_ok() && said == b"held\n" && lock.try_lock().is_ok()
}

#[cfg(unix)]
fn is_own(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let own = rustix::process::geteuid().as_raw();
    folder
        .symlink_metadata()
        .is_ok_and(|about| about.uid() == own)
}

#[cfg(not(unix))]
fn is_own(_: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_by_the_next_and_what_lives_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let living = Scratch::new(parent.path()).unwrap();
        let killed = Scratch::new(parent.path()).unwrap();
        let left = killed.folder.path().to_owned();
        std::fs::write(left.join("words"), "last").unwrap();
        // As a process ends that is killed: its locks go, its files stay.
        let Scratch { folder, _lock } = killed;
        let _ = folder.keep();
        drop(_lock);
        let foreign = parent.path().join(format!("{PREFIX}foreign"));
        std::fs::create_dir(&foreign).unwrap();
        remove_left(parent.path());
        assert!(!left.exists());
        assert!(living.folder.path().exists() && foreign.exists());
    }
}

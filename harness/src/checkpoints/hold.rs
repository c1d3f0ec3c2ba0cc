//! One harness at a time makes a checkpoint; what was killed in the middle of it is cleared away.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::{atomic, interrupt};

/// Takes hold of a checkpoint's folder, whether it is there yet or not, for as long as the file lives: another
/// harness waits. The lock lies beside the folder, which may be replaced.
pub fn hold(folder: &Path) -> anyhow::Result<File> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let path = folder.with_file_name(format!(".{name}.lock"));
    let refused = || format!("{}: cannot be written", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(refused)?;
    }
    let file = atomic::open_in_place(&path).with_context(refused)?;
    let mut is_told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if interrupt::requested() => bail!("interrupted"),
            Err(TryLockError::WouldBlock) if is_told => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!(
                    "waiting for another harness that prepares {}",
                    folder.display()
                );
                is_told = true;
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(refused),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Removes what a harness that was killed in the middle of preparing has left. Nobody else prepares there.
pub fn remove_partial(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name
            .to_string_lossy()
            .starts_with(checkpoint::PARTIAL_PREFIX)
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_preparation_left_is_cleared_away_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let partial = folder
            .path()
            .join(format!("{}x", checkpoint::PARTIAL_PREFIX));
        std::fs::create_dir(&partial).unwrap();
        std::fs::write(partial.join("checkpoint"), "half").unwrap();
        std::fs::write(folder.path().join("model.pth"), "whole").unwrap();
        remove_partial(folder.path());
        assert!(!partial.exists());
        assert!(folder.path().join("model.pth").exists());
    }

    #[test]
    fn a_folder_is_held_by_one_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("small-f32");
        let held = hold(&folder).unwrap();
        let beside = File::open(root.path().join(".small-f32.lock")).unwrap();
        assert!(beside.try_lock().is_err());
        drop(held);
        assert!(beside.try_lock().is_ok());
    }
}

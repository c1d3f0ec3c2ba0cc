//! Files that are whole or not there: written under a temporary name, renamed when they are complete.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use checkpoint::PARTIAL_PREFIX;

/// Writes `bytes` to `path`. Whoever reads it, also after a crash, finds what was there before or all of them.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let write = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(PARTIAL_PREFIX);
        // As any file that the user makes; temporary ones are otherwise private.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder.unwrap_or(Path::new(".")))?;
        file.write_all(bytes.as_ref())?;
        file.as_file().sync_data()?;
        file.persist(path)?;
        Ok::<_, std::io::Error>(())
    };
    write().with_context(|| format!("{}: cannot be written", path.display()))
}

/// Removes files that a write which was killed has left in a folder. Nobody may be writing there.
pub fn remove_partial(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_partial = name.to_string_lossy().starts_with(PARTIAL_PREFIX);
        // What is a link, or a folder, is nothing that was left here.
        if is_partial && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Opens a file to read and write it, or makes an empty one. What is there stays; a link is not followed.
pub fn open_in_place(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    }
    let file = options.open(path)?;
    // To read a pipe would wait for whoever writes to it.
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn what_was_left_is_removed_and_a_link_is_neither_followed_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(elsewhere.path(), "mine").unwrap();
        let link = folder.path().join(format!("{PARTIAL_PREFIX}link"));
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
        let left = folder.path().join(format!("{PARTIAL_PREFIX}a"));
        std::fs::write(&left, "half").unwrap();
        remove_partial(folder.path());
        assert!(!left.exists() && link.exists());
        assert!(open_in_place(&link).is_err());
        let made = folder.path().join("made");
        std::fs::write(&made, "text").unwrap();
        open_in_place(&made).unwrap();
        assert_eq!(std::fs::read_to_string(made).unwrap(), "text");
    }
}

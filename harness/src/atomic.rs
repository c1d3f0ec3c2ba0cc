//! Files that are whole or not there: written under a temporary name, renamed when they are complete.

use std::io::Write;
use std::path::Path;

use anyhow::Context;

/// Writes `bytes` to `path`. Whoever reads it, also after a crash, finds what was there before or all of them.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let write = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".partial-");
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

//! This program's own file, which is started again for each run.

use std::path::PathBuf;

/// Where it lies: as the kernel says, or, without `/proc`, as it was called.
///
/// # Errors
///
/// If neither tells.
pub fn own() -> std::io::Result<PathBuf> {
    std::env::current_exe().or_else(|error| {
        let called = std::env::args_os().next().map(PathBuf::from);
        // A bare name was looked for in `PATH`, by whoever called it.
        let path = called.filter(|called| called.components().count() > 1);
        path.ok_or(error)?.canonicalize()
    })
}

//! The limit on the size of files that a process writes (`ulimit -f`).

/// From here on a write past the limit is an error that tells of it, and no signal that ends the process amid what it writes.
/// What this process starts inherits that. (Unix; elsewhere there is no such limit.)
pub fn outlive_file_size_limit() {
    #[cfg(unix)]
    // SAFETY: no handler is installed; the signal is ignored.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

//! Ctrl-C and SIGTERM: noted, and acted on between and during runs.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on, an interrupt is noted instead of ending the program; a second one ends it.
pub fn watch() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Relaxed) {
            std::process::exit(130);
        }
    })?;
    Ok(())
}

/// Whether somebody asked to stop.
pub fn requested() -> bool {
    INTERRUPTED.load(Relaxed)
}

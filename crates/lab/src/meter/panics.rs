//! Panics of any thread. CubeCL 0.10 allocates in a server thread: when that fails it panics there, the
//! program goes on, and reads return other bytes. So a panic anywhere fails the run.

use std::sync::{Mutex, MutexGuard, PoisonError};

static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The panics of this process since [`Panics::watch`].
pub(crate) struct Panics;

impl Panics {
    /// Notes every panic from here on, and prints it to standard error.
    pub fn watch() {
        std::panic::set_hook(Box::new(|panic| {
            let message = panic
                .payload_as_str()
                .unwrap_or("a panic without a message");
            let place = panic.location().map(|place| format!(" ({place})"));
            let message = format!("{message}{}", place.unwrap_or_default());
            eprintln!("panic: {message}");
            messages().push(message);
        }));
    }

    /// The first panic, if there was one: what follows is mostly its consequence.
    pub fn first() -> Option<String> {
        messages().first().cloned()
    }
}

fn messages() -> MutexGuard<'static, Vec<String>> {
    MESSAGES.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Panics of any thread. CubeCL 0.10 allocates in a server thread: when that fails it panics there, the
//! program goes on, and reads return other bytes. So a panic anywhere fails the run.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

thread_local! {
    /// What this thread's panic said, while it is one that is caught.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A thread has panicked.
#[derive(Debug, thiserror::Error)]
#[error("a thread panicked: {message}")]
pub struct Panicked {
    /// What the first panic said.
    pub message: String,
}

/// The panics of this process since [`Panics::watch`].
pub struct Panics;

impl Panics {
    /// Notes every panic from here on, and prints it to standard error.
    pub fn watch() {
        std::panic::set_hook(Box::new(|panic| {
            if is_caught(panic) {
                return;
            }
            let place = panic
                .location()
                .map(|place| format!(" ({})", within_crate(&place.to_string())));
            let message = format!("{}{}", essence(text(panic)), place.unwrap_or_default());
            eprintln!("panic: {message}");
            messages().push(message);
        }));
    }

    /// Does what may panic, in this thread: a panic is an error with its message, and is neither noted nor printed.
    ///
    /// # Errors
    ///
    /// The panic's message.
    pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let otherwise = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                if !is_caught(panic) {
                    otherwise(panic);
                }
            }));
        });
        let before = CAUGHT.replace(Some(String::new()));
        let result = std::panic::catch_unwind(AssertUnwindSafe(work));
        let message = CAUGHT.replace(before).unwrap_or_default();
        result.map_err(|_| message)
    }

    /// That there was none.
    ///
    /// # Errors
    ///
    /// The first panic.
    pub fn check() -> Result<(), Panicked> {
        match Panics::first() {
            None => Ok(()),
            Some(message) => Err(Panicked { message }),
        }
    }

    /// The first panic, if there was one: what follows is mostly its consequence.
    pub fn first() -> Option<String> {
        messages().first().cloned()
    }
}

/// Keeps a panic's message, where it is one that is caught.
fn is_caught(panic: &PanicHookInfo<'_>) -> bool {
    CAUGHT.with_borrow_mut(|caught| match caught {
        Some(message) => {
            text(panic).clone_into(message);
            true
        }
        None => false,
    })
}

/// Without what `unwrap` and backtraces say around it.
fn essence(text: &str) -> String {
    let text = text.trim_start_matches("called `Result::unwrap()` on an `Err` value: ");
    let lines = text.lines().map(str::trim);
    let telling = lines.filter(|line| !line.is_empty() && *line != "No backtrace available");
    telling.collect::<Vec<_>>().join(" ")
}

/// `cubecl-cuda-0.10.0/src/x.rs:1:2` of the path of a crate that cargo has fetched.
fn within_crate(place: &str) -> &str {
    let fetched = place.split_once("/registry/src/");
    let within = fetched.and_then(|(_, behind)| behind.split_once('/'));
    within.map_or(place, |(_, within)| within)
}

fn text<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    panic
        .payload_as_str()
        .unwrap_or("a panic without a message")
}

fn messages() -> MutexGuard<'static, Vec<String>> {
    MESSAGES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_without_what_unwrap_says_and_where_a_crate_lies() {
        let said = essence(
            "called `Result::unwrap()` on an `Err` value: Oom { bytes: 3 }\nNo backtrace available\n",
        );
        assert_eq!(said, "Oom { bytes: 3 }");
        let place = "/home/x/.cargo/registry/src/index.crates.io-1/cubecl-0.10.0/src/a.rs:1:2";
        assert_eq!(within_crate(place), "cubecl-0.10.0/src/a.rs:1:2");
        assert_eq!(within_crate("src/a.rs:1:2"), "src/a.rs:1:2");
    }

    #[test]
    fn a_caught_panic_is_an_error_with_its_message_and_is_not_noted() {
        assert_eq!(Panics::caught(|| 7), Ok(7));
        let inside = || {
            let inner: Result<(), String> = Panics::caught(|| panic!("inner"));
            assert_eq!(inner, Err("inner".to_owned()));
            panic!("outer {}", 1)
        };
        let outer: Result<(), String> = Panics::caught(inside);
        assert_eq!(outer, Err("outer 1".to_owned()));
        assert_eq!(Panics::first(), None);
    }
}

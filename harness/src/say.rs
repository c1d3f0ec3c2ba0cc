//! What is printed: `println!` and its kin, in this crate, are those of this file. A reader that goes away, as `head` does, ends
//! nothing: what is printed from then on is dropped, and the program ends with its own exit code. Any other failure, such as a full
//! disk, is an error, told at the end. Nothing that is printed acts on a terminal.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::sync::OnceLock;

use crate::escape;

/// Why something could not be printed, the first time.
static FAILED: OnceLock<String> = OnceLock::new();

/// Prints to standard output.
pub fn out(text: Arguments<'_>) {
    print("standard output", &mut stdout().lock(), text);
}

/// Prints to standard error.
pub fn err(text: Arguments<'_>) {
    print("standard error", &mut stderr().lock(), text);
}

fn print(name: &str, stream: &mut dyn Write, text: Arguments<'_>) {
    let text = text.to_string();
    let shown = escape::terminal(&text);
    let printed = stream.write_all(shown.as_bytes());
    let printed = printed.and_then(|()| stream.flush());
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            FAILED.get_or_init(|| format!("{name} cannot be written: {error}"));
        }
        _ => {}
    }
}

/// That everything could be printed that somebody reads.
///
/// # Errors
///
/// Why not.
pub fn check() -> anyhow::Result<()> {
    match FAILED.get() {
        None => Ok(()),
        Some(reason) => Err(anyhow::anyhow!("{reason}")),
    }
}

macro_rules! print {
    ($($text:tt)*) => { crate::say::out(format_args!($($text)*)) };
}

macro_rules! println {
    () => { crate::say::out(format_args!("\n")) };
    ($($text:tt)*) => { crate::say::out(format_args!("{}\n", format_args!($($text)*))) };
}

macro_rules! eprintln {
    ($($text:tt)*) => { crate::say::err(format_args!("{}\n", format_args!($($text)*))) };
}

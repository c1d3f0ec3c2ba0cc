//! Why a module could not be loaded or saved.

use std::path::PathBuf;

use checkpoint::quoted;

use crate::Mismatch;

/// Why a module could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoint cannot be opened, read or written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A file of PyTorch's has no state dict where one is looked for; [`open_at`](crate::open_at) opens another.
    #[error("{reason}")]
    StateDict {
        /// What there is instead.
        reason: String,
    },
    /// A file is not the one any more that was opened: the index is of another.
    #[error("{}: has changed since it was opened: open it again", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// Module and checkpoint do not fit each other. Nothing was loaded, and no memory taken.
    #[error(transparent)]
    Mismatch(Box<Mismatch>),
    /// A pattern is no regular expression.
    #[error("{} is no regular expression: {reason}", quoted(pattern))]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why not.
        reason: String,
    },
    /// A value does not fit the dtype that it was to become.
    #[error("{}: tensor {} holds {value}, which {into} cannot hold: {advice}", file.display(), quoted(tensor))]
    Value {
        /// The file that holds it.
        file: PathBuf,
        /// Its name in the checkpoint.
        tensor: String,
        /// What it holds.
        value: String,
        /// What it was to become.
        into: String,
        /// What to do.
        advice: &'static str,
    },
    /// The device refused, ran out of memory, or is lost.
    #[error("device {device}: {reason}")]
    Device {
        /// Which one.
        device: String,
        /// What it answered, and what to do where that is known.
        reason: String,
    },
    /// A tensor is larger than the device can bind. Asking for it all the same would panic in a thread of CubeCL 0.10, and later
    /// reads would return other tensors' bytes.
    #[error(
        "a tensor of {bytes} bytes is over the device's limit of {limit} bytes: cast it to a smaller dtype, or split it"
    )]
    TooLarge {
        /// The tensor's size.
        bytes: u64,
        /// The largest that the device binds.
        limit: u64,
    },
    /// The devices that a model is divided among have no room for a part of it. Nothing was loaded, and no memory taken.
    #[error(
        "{} has {bytes} bytes, for which the devices have no room left: the model has {model_bytes} bytes, and they are given \
         {room_bytes} together; name another device, or give more room",
        quoted(part)
    )]
    NoRoom {
        /// The part: an element of a list of the module, or a field.
        part: String,
        /// Its size.
        bytes: u64,
        /// The size of all that is loaded.
        model_bytes: u64,
        /// What all devices were given together.
        room_bytes: u64,
    },
    /// What was read back from the device is not what the file holds.
    #[error("{}: {} on the device is not tensor {} of the file", file.display(), quoted(path), quoted(tensor))]
    Unverified {
        /// The parameter's path in the module.
        path: String,
        /// The tensor's name in the checkpoint.
        tensor: String,
        /// The file that holds it.
        file: PathBuf,
    },
    /// The kernel offers no io_uring to this process.
    #[error("the kernel offers no io_uring to this process: {reason}: read with .parallel()")]
    NoUring {
        /// What it answered.
        reason: String,
    },
    /// A thread that was reading panicked.
    #[error("a thread that read the checkpoint panicked: {0}")]
    Panicked(String),
    /// It is something that the library, or a backend, does not do.
    #[error("{0}")]
    Unsupported(String),
}

impl Error {
    /// What a device answered. Of the lines that Burn and CubeCL wrap a reason into, those are left that say something.
    pub fn device(device: &impl std::fmt::Debug, reason: impl ToString) -> Error {
        Error::Device {
            device: format!("{device:?}"),
            reason: essence(&reason.to_string()),
        }
    }
}

fn essence(text: &str) -> String {
    let wrappings = [
        "Caused by:",
        "An error happened during execution",
        "The server is in an invalid state",
        "Backtrace",
        "No backtrace available",
    ];
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let telling = lines.filter(|line| !wrappings.iter().any(|start| line.starts_with(start)));
    let telling: Vec<&str> = telling.collect();
    match telling.is_empty() {
        true => text.to_owned(),
        false => telling.join(": "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_say_nothing_are_left_out_of_a_devices_reason() {
        let wrapped = "An error happened during execution\nCaused by:\n  The server is in an invalid state\nCaused by:\n  \
                       [Io(no room)]\nBacktrace:\nNo backtrace available";
        let error = Error::device(&7, wrapped).to_string();
        assert!(error.contains("[Io(no room)]"), "{error}");
        assert!(
            !error.contains("Caused by") && !error.contains("racktrace"),
            "{error}"
        );
        let only = Error::device(&7, "An error happened during execution").to_string();
        assert!(only.contains("An error happened"), "{only}");
    }
}

//! What can be wrong with a checkpoint, said to a person.

use std::path::{Path, PathBuf};

/// Why a checkpoint could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {action}: {answer}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system answered. It stands in the message, and so is no source: a chain of errors would tell it twice.
        answer: std::io::Error,
    },
    /// The file system knows no direct I/O.
    #[error("{}: lies on a file system that knows no direct I/O (memory, a network?): read it buffered", path.display())]
    NoDirectIo {
        /// The file.
        path: PathBuf,
    },
    /// The file is not the checkpoint it should be.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and what to do where that is known.
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        move |answer| Error::Io {
            path: path.to_owned(),
            action,
            answer,
        }
    }

    pub(crate) fn invalid(path: &Path, reason: impl Into<String>) -> Error {
        Error::Invalid {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

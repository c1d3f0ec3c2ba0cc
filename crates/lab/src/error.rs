//! Why a run did not end with a loaded model.

use meter::{CacheError, HostCapError, Panicked};

/// An error of a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoint could not be opened or read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The device is not there, or refused.
    #[error("device {device}: {reason}")]
    Device {
        /// Which one.
        device: String,
        /// What it answered.
        reason: String,
    },
    /// The device or the experiment is not made for what was asked, so that the run was not made.
    #[error("device {device}: {reason}")]
    Unsupported {
        /// Which one.
        device: String,
        /// Why not.
        reason: String,
    },
    /// A tensor is larger than the device can bind. Asking for it all the same would panic in another
    /// thread of CubeCL 0.10, and later reads would return other tensors' bytes.
    #[error("a tensor of {bytes} bytes is over the device's limit of {limit} bytes")]
    TensorTooLarge {
        /// The tensor's size.
        bytes: u64,
        /// The largest allocation of the device.
        limit: u64,
    },
    /// Memory ran out.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The loaded model is not what the checkpoint holds.
    #[error("verification failed: {0}")]
    Verification(String),
    /// What was computed is no number.
    #[error("{0}")]
    NotFinite(String),
    /// Whoever asked for it asked to stop.
    #[error("it was stopped")]
    Stopped,
    /// The page cache could not be brought into the wanted state, so that the run was not made.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The host cap could not be enforced, so that the run was not made.
    #[error(transparent)]
    HostCap(#[from] HostCapError),
    /// The run could not be set up as asked.
    #[error("{0}")]
    Setup(String),
}

impl Error {
    /// A file that could not be read.
    pub fn file(path: &std::path::Path, error: &std::io::Error) -> Error {
        Error::Setup(format!("{}: cannot be read: {error}", path.display()))
    }

    /// An error of one of Burn's own loaders.
    pub fn store(loader: &str, path: &std::path::Path, error: &dyn std::fmt::Debug) -> Error {
        Error::Setup(format!(
            "{}: {loader} could not load it: {error:?}",
            path.display()
        ))
    }

    /// An error whose text came out of a panic: CubeCL reports exhausted devices that way.
    pub(crate) fn from_panic(message: String) -> Error {
        let lower = message.to_lowercase();
        let signs = [
            "out of memory",
            "outofmemory",
            "out_of_memory",
            "bufferto",
            "allocat",
        ];
        if signs.iter().any(|sign| lower.contains(sign)) {
            Error::OutOfMemory(message)
        } else {
            Error::Setup(message)
        }
    }
}

impl From<Panicked> for Error {
    fn from(panicked: Panicked) -> Error {
        Error::from_panic(panicked.to_string())
    }
}

/// What a layout says: of the checkpoint, or of how it is to be read or written.
impl From<gpt2::layout::Error> for Error {
    fn from(error: gpt2::layout::Error) -> Error {
        match error {
            gpt2::layout::Error::Checkpoint(error) => Error::Checkpoint(error),
            other => Error::Setup(other.to_string()),
        }
    }
}

/// What the library says, in the words that a record has.
impl From<featherweight::Error> for Error {
    fn from(error: featherweight::Error) -> Error {
        match error {
            featherweight::Error::Checkpoint(error) => Error::Checkpoint(error),
            featherweight::Error::Device { device, reason } => Error::Device { device, reason },
            featherweight::Error::TooLarge { bytes, limit } => {
                Error::TensorTooLarge { bytes, limit }
            }
            featherweight::Error::NoUring { reason } => Error::Unsupported {
                device: "io_uring".to_owned(),
                reason,
            },
            other => Error::Setup(other.to_string()),
        }
    }
}

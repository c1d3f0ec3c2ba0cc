//! Why a checkpoint is not read as a GPT-2, or a GPT-2 not written as one of a layout.

use std::path::PathBuf;

use checkpoint::Shard;

/// An error of a layout.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoint, or the layout file, could not be opened or read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A layout file that is none.
    #[error("{}: {reason}", path.display())]
    NoLayout {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// One file of a checkpoint that is in several.
    #[error("{}: {shard}", path.display())]
    Shard {
        /// The file.
        path: PathBuf,
        /// Which one it is.
        shard: Shard,
    },
    /// The checkpoint is a GPT-2 in none of the layouts.
    #[error("{}: {reason}", path.display())]
    Unknown {
        /// The checkpoint.
        path: PathBuf,
        /// What it has instead.
        reason: String,
    },
    /// A tensor of the model that a layout does not have.
    #[error(
        "the layout `{layout}` has no name for the model's `{tensor}`, so that it cannot be written in it"
    )]
    NoName {
        /// The layout.
        layout: String,
        /// The tensor, by the model's own name.
        tensor: String,
    },
    /// A tensor of a file whose parts cannot be put together.
    #[error("`{name}` cannot be written: {reason}")]
    Parts {
        /// The tensor, by its name in the file.
        name: String,
        /// What is wrong with its parts.
        reason: String,
    },
}

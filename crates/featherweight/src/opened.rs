//! Opening a checkpoint.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use checkpoint::TensorRange;

use crate::{Error, Load};

/// An opened checkpoint: an index of its tensors. It holds no weights and no open file.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    index: checkpoint::Checkpoint,
    files: Arc<[FileState]>,
}

/// Opens a checkpoint: a safetensors, `.pth` or burnpack file, a folder of shards with an index, or that index. The format is
/// read off the contents.
///
/// # Errors
///
/// If there is none, or it is not one of these, truncated, or contradicts itself.
pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, Error> {
    opened(checkpoint::Checkpoint::open_any(path, None))
}

/// As [`open`], of a `.pth` file with several state dicts: of that at `key`, a path of keys with dots between.
///
/// # Errors
///
/// As [`open`]; or if there is no such key, and the error names those there are.
pub fn open_at(path: impl AsRef<Path>, key: &str) -> Result<Checkpoint, Error> {
    opened(checkpoint::Checkpoint::open_any(path, Some(key)))
}

fn opened(index: Result<checkpoint::Checkpoint, checkpoint::Error>) -> Result<Checkpoint, Error> {
    match index {
        Ok(index) => Ok(index.into()),
        Err(error @ checkpoint::Error::NoStateDict { .. }) => Err(Error::StateDict {
            reason: error.to_string().replace("with --key", "with open_at"),
        }),
        Err(error) => Err(error.into()),
    }
}

impl From<checkpoint::Checkpoint> for Checkpoint {
    fn from(index: checkpoint::Checkpoint) -> Checkpoint {
        let mut files: Vec<FileState> = Vec::new();
        for tensor in index.all() {
            if files.iter().all(|file| file.path != tensor.file) {
                files.push(FileState::of(&tensor.file));
            }
        }
        Checkpoint {
            index,
            files: files.into(),
        }
    }
}

/// What a file was when it was opened.
#[derive(Debug, Clone, PartialEq)]
struct FileState {
    path: Arc<Path>,
    /// Its length, when it was last written, and which file it is; `None` where it is gone.
    state: Option<(u64, Option<SystemTime>, Identity)>,
}

/// What tells a file from another that has taken its name, be it of the same length and age: its number, and when that was changed.
type Identity = (u64, u64, i64, i64);

#[cfg(unix)]
fn identity(metadata: &std::fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    (metadata.dev(), metadata.ino(), changed.0, changed.1)
}

#[cfg(not(unix))]
fn identity(_: &std::fs::Metadata) -> Identity {
    Identity::default()
}

impl FileState {
    fn of(path: &Arc<Path>) -> FileState {
        let metadata = std::fs::metadata(path).ok();
        FileState {
            path: Arc::clone(path),
            state: metadata.map(|metadata| {
                let written = metadata.modified().ok();
                (metadata.len(), written, identity(&metadata))
            }),
        }
    }
}

impl Checkpoint {
    /// What is in it, and where.
    pub fn index(&self) -> &checkpoint::Checkpoint {
        &self.index
    }

    /// These of its tensors, or parts of them, under names of their own: for who loads a model piece by piece. That its files have
    /// not changed since it was opened is checked of this one, too.
    ///
    /// # Errors
    ///
    /// If two of them have one name.
    pub fn only(&self, tensors: Vec<TensorRange>) -> Result<Checkpoint, Error> {
        Ok(Checkpoint {
            index: self.index.only(tensors)?,
            files: Arc::clone(&self.files),
        })
    }

    /// Loads it: say how, then [`Load::into`] what.
    pub fn load(&self) -> Load {
        Load::new(self.clone())
    }

    /// That nobody has written to its files, or exchanged them, since it was opened.
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        let mut files = self.files.iter();
        match files.find(|file| FileState::of(&file.path) != **file) {
            None => Ok(()),
            Some(file) => Err(Error::Changed {
                file: file.path.to_path_buf(),
            }),
        }
    }
}

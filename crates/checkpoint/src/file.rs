//! Opening what is a regular file, and nothing else: opening a pipe waits for whoever writes to it, and opening a device may do
//! anything.

use std::fmt;
use std::fs::{File, FileType};
use std::path::Path;

use crate::Error;

/// What a path leads to that is no regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// A folder, where a file is needed.
    Folder,
    /// A named pipe, or that of a shell's `<(command)`.
    Pipe,
    /// A socket.
    Socket,
    /// A device, such as a terminal or a disk.
    Device,
    /// Something that this system alone knows.
    Unknown,
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Special::Folder => "it is a folder",
            Special::Pipe => "it is a pipe: write what comes out of it to a file first",
            Special::Socket => "it is a socket",
            Special::Device => "it is a device",
            Special::Unknown => "it is something that only this system knows",
        })
    }
}

/// Opens a regular file to read, and says its length.
pub(crate) fn open(path: &Path) -> Result<(File, u64), Error> {
    check(path)?;
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let length = file.metadata().map_err(Error::io(path, "open"))?.len();
    Ok((file, length))
}

/// That a path leads to a regular file; says its length. Opens nothing.
pub(crate) fn check(path: &Path) -> Result<u64, Error> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path, "open"))?;
    match metadata.is_file() {
        true => Ok(metadata.len()),
        false => Err(Error::NotRegular {
            path: path.to_owned(),
            special: special(metadata.file_type()),
        }),
    }
}

#[cfg(unix)]
fn special(kind: FileType) -> Special {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        kind if kind.is_dir() => Special::Folder,
        kind if kind.is_fifo() => Special::Pipe,
        kind if kind.is_socket() => Special::Socket,
        kind if kind.is_char_device() || kind.is_block_device() => Special::Device,
        _ => Special::Unknown,
    }
}

#[cfg(not(unix))]
fn special(kind: FileType) -> Special {
    match kind.is_dir() {
        true => Special::Folder,
        false => Special::Unknown,
    }
}

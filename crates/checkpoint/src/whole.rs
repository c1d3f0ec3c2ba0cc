//! Small files that are read whole: regular ones, and no more of them than is meant.

use std::io::Read;
use std::path::Path;

use crate::{Error, file};

/// Reads a file of at most so many bytes.
///
/// # Errors
///
/// If it cannot be read, is larger, or is no regular file, but a pipe or a device, which may have no end.
pub fn read_whole(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Error> {
    let (file, length) = file::open(path)?;
    let mut bytes = Vec::new();
    if length <= max_bytes {
        // Not by its length alone, for it may grow meanwhile.
        let read = file.take(max_bytes + 1).read_to_end(&mut bytes);
        read.map_err(Error::io(path, "read"))?;
        if bytes.len() as u64 <= max_bytes {
            return Ok(bytes);
        }
    }
    let reason = format!("is larger than the {max_bytes} bytes that such a file may have");
    Err(Error::invalid(path, reason))
}

/// The same of a text.
///
/// # Errors
///
/// As [`read_whole`]; or if it is no UTF-8.
pub fn read_text(path: &Path, max_bytes: u64) -> Result<String, Error> {
    let text = String::from_utf8(read_whole(path, max_bytes)?);
    text.map_err(|_| Error::invalid(path, "is no text in UTF-8"))
}

/// Whether something bears this name, be it a link that leads nowhere: what is there and cannot be read is not taken for absent.
pub fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit_and_a_larger_one_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, "four").unwrap();
        assert_eq!(read_text(&path, 4).unwrap(), "four");
        let said = read_whole(&path, 3).unwrap_err().to_string();
        assert!(
            said.contains("mine.toml") && said.contains("3 bytes"),
            "{said}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn what_has_no_end_is_refused() {
        let said = read_whole(Path::new("/dev/zero"), 9).unwrap_err();
        assert!(said.to_string().contains("it is a device"), "{said}");
    }
}

//! What the targets share: bytes as a checkpoint on disk, opened and read as a loader would.

use std::path::Path;

use checkpoint::Checkpoint;

/// Opens `data` as a file of this name, and reads what tensors it has, should that work.
pub fn open(name: &str, data: &[u8]) {
    thread_local! {
        static FOLDER: tempfile::TempDir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    }
    FOLDER.with(|folder| {
        let path = folder.path().join(name);
        std::fs::write(&path, data).unwrap();
        open_path(&path);
    });
}

fn open_path(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open_any(path, None) else {
        return;
    };
    for tensor in checkpoint.all() {
        let fits = tensor.bytes() <= 1 << 20;
        assert!(!fits || tensor.digest().is_ok(), "{tensor:?} was listed and cannot be read");
    }
}

/// Hands `data` to a parser of the program's.
#[cfg(feature = "harness")]
pub fn parse(name: &str, data: &[u8]) {
    let parser = harness::parsers::ALL.iter().find(|parser| parser.name == name);
    (parser.expect("the target is of a parser").parse)(data);
}

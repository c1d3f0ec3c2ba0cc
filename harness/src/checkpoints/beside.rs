//! Other checkpoints of which a `config.json` in a folder would tell: those in it, and those one folder down.

use std::path::{Path, PathBuf};

use checkpoint::Checkpoint;
use lab::is_optimizer_state;

use super::configuration;
use super::replacing::is_same;

/// How the names of checkpoints end.
const ENDINGS: [&str; 8] = [
    ".safetensors",
    ".pth",
    ".pt",
    ".bin",
    ".ckpt",
    ".bpk",
    ".mpk",
    ".index.json",
];

/// A checkpoint other than `own` that would be read with a `config.json` in this folder, where there is none yet.
pub fn other_checkpoint(folder: &Path, own: &Path) -> Option<PathBuf> {
    let is_other = |path: &PathBuf| is_checkpoint(path) && !is_same(path, own);
    let here = entries(folder);
    let below = here.iter().filter(|path| is_read_with_what_is_above(path));
    let below: Vec<PathBuf> = below.flat_map(|folder| entries(folder)).collect();
    here.into_iter().chain(below).find(is_other)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn is_checkpoint(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_state = || Checkpoint::open(path).is_ok_and(|file| is_optimizer_state(&file));
    ENDINGS.iter().any(|end| name.ends_with(end)) && path.is_file() && !is_state()
}

fn is_read_with_what_is_above(folder: &Path) -> bool {
    folder.is_dir() && !folder.join(configuration::FILE).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_found_beside_and_one_folder_down_where_it_has_no_configuration() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("below")).unwrap();
        std::fs::write(at("own.pth"), "").unwrap();
        std::fs::write(at("notes.txt"), "").unwrap();
        let other = || other_checkpoint(root.path(), &at("own.pth"));
        assert_eq!(other(), None);
        std::fs::write(at("below/a.pt"), "").unwrap();
        assert_eq!(other(), Some(at("below/a.pt")));
        std::fs::write(at("below/config.json"), "{}").unwrap();
        assert_eq!(other(), None);
        std::fs::write(at("a.pth"), "").unwrap();
        assert_eq!(other(), Some(at("a.pth")));
    }
}

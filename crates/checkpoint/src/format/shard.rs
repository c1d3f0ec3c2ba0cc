//! Telling that a file alone is a part of a checkpoint.

use std::fmt;
use std::path::{Path, PathBuf};

use super::sharded;

/// That an opened file is one of several that make a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Shard {
    /// The index beside it that names it.
    pub index: Option<PathBuf>,
    /// How many files make the checkpoint.
    pub files: usize,
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files;
        match &self.index {
            Some(index) => write!(
                f,
                "is one of {files} files that make a checkpoint: open their index, {}",
                index.display()
            ),
            None => write!(
                f,
                "is by its name one of {files} files that make a checkpoint, and their index is not beside it: get the others and \
                 the index, and open that"
            ),
        }
    }
}

impl Shard {
    /// Whether `file` is named in an index beside it, or has the name of a part. Where it is a link, what it leads to counts as
    /// well.
    pub(crate) fn of(file: &Path) -> Option<Shard> {
        let real = std::fs::canonicalize(file).ok();
        let both = || std::iter::once(file).chain(real.as_deref());
        if let Some((index, files)) = both().find_map(sharded::index_of) {
            let index = Some(index);
            return Some(Shard { index, files });
        }
        let files = both().find_map(parts_by_name)?;
        Some(Shard { index: None, files })
    }
}

/// `model-00001-of-00004.safetensors` is one of 4.
fn parts_by_name(file: &Path) -> Option<usize> {
    let name = file.file_name()?.to_str()?;
    let (before, behind) = name.rsplit_once("-of-")?;
    let digits = |text: &str| {
        (text.len() >= 2)
            .then(|| text.parse::<usize>().ok())
            .flatten()
    };
    let (_, number) = before.rsplit_once('-')?;
    let (count, _) = behind.split_once('.')?;
    let (number, count) = (digits(number)?, digits(count)?);
    (count > 1 && (0..=count).contains(&number)).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_known_by_its_name() {
        for (name, expected) in [
            ("model-00001-of-00004.safetensors", Some(4)),
            ("pytorch_model-00002-of-00002.bin", Some(2)),
            ("model-00001-of-00001.safetensors", None),
            ("model.safetensors", None),
            ("best-of-3.pt", None),
            ("run-of-the-mill.pth", None),
        ] {
            assert_eq!(parts_by_name(Path::new(name)), expected, "{name}");
        }
    }
}

//! Where results are looked for when nobody says where.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::checkout::{self, RESULTS, RUNS};

/// The folders that hold `<machine>/<manifest>`: a user's own results before the committed ones.
pub fn roots() -> [PathBuf; 2] {
    [RUNS, RESULTS].map(checkout::folder)
}

/// Every folder of results in [`roots`]: one root after the other, and in each what was recorded last first.
pub fn folders() -> Vec<PathBuf> {
    roots().iter().flat_map(|root| newest_first(root)).collect()
}

/// `<root>/<machine>/<manifest>`, what was recorded last first. Nothing where there is no such folder.
fn newest_first(root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for folder in subfolders(root).iter().flat_map(|m| subfolders(m)) {
        let runs = std::fs::metadata(folder.join("runs.csv"));
        if let Ok(modified) = runs.and_then(|runs| runs.modified()) {
            found.push((modified, folder));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// The folders in a folder, by name.
pub fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut folders: Vec<_> = paths.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_recorded_last_is_looked_at_first_and_other_folders_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        for (age, name) in [(30, "a/old"), (10, "b/new"), (20, "a/middle")] {
            let folder = root.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            let file = std::fs::File::create(folder.join("runs.csv")).unwrap();
            file.set_modified(start - Duration::from_secs(age)).unwrap();
        }
        std::fs::create_dir_all(root.path().join("a/empty")).unwrap();
        let expected = ["b/new", "a/middle", "a/old"].map(|name| root.path().join(name));
        assert_eq!(newest_first(root.path()), expected);
        assert!(newest_first(&root.path().join("nowhere")).is_empty());
    }
}

//! The checkout that the program is started in: whoever starts it anywhere inside finds the same folders. Outside a checkout
//! they lie below the current folder.

use std::path::{Path, PathBuf};

/// What tells a checkout from any other folder.
const MANIFESTS: &str = "harness/manifests";

/// Where checkpoints are kept.
pub const CHECKPOINTS: &str = "checkpoints";
/// Where a user's own results go; not tracked.
pub const RUNS: &str = "runs";
/// The results that are committed.
pub const RESULTS: &str = "results";
/// The charts of the committed results.
pub const PLOTS: &str = "plots";

/// The root of the checkout that holds the current folder.
pub fn root() -> Option<PathBuf> {
    root_of(&std::env::current_dir().ok()?)
}

fn root_of(folder: &Path) -> Option<PathBuf> {
    let holds_manifests = |folder: &&Path| folder.join(MANIFESTS).is_dir();
    folder.ancestors().find(holds_manifests).map(Path::to_owned)
}

/// A folder at the checkout's root, or below the current folder where there is no checkout.
pub fn folder(name: &str) -> PathBuf {
    root().map_or_else(|| PathBuf::from(name), |root| shown(&root.join(name)))
}

/// The manifests of the checkout.
pub fn manifests() -> Option<PathBuf> {
    root().map(|root| shown(&root.join(MANIFESTS)))
}

/// A path as a person in the current folder would write it.
pub fn shown(path: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| pathdiff::diff_paths(path, here));
    relative.unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_is_found_from_any_folder_inside_it_and_nowhere_else() {
        let checkout = tempfile::tempdir().unwrap();
        let inside = checkout.path().join("crates/some/src");
        std::fs::create_dir_all(&inside).unwrap();
        assert_eq!(root_of(&inside), None);
        std::fs::create_dir_all(checkout.path().join(MANIFESTS)).unwrap();
        assert_eq!(root_of(&inside).as_deref(), Some(checkout.path()));
        assert_eq!(root_of(checkout.path()).as_deref(), Some(checkout.path()));
    }
}

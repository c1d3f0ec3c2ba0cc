//! The checkout that the program is started in: whoever starts it anywhere inside finds the same folders. Outside a checkout
//! they lie below the current folder.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::subprocess;

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

/// Longer than git takes to look at a large checkout on a slow disk.
const GIT_LIMIT: Duration = Duration::from_secs(60);

/// Whether git succeeded in this checkout, and what it said; `None` where there is no git.
///
/// # Errors
///
/// If it gives no answer in time, or somebody asks to stop.
pub fn git(root: &Path, arguments: &[&str]) -> anyhow::Result<Option<(bool, String)>> {
    let mut command = Command::new("git");
    command.current_dir(root).args(arguments);
    match subprocess::ask(&mut command, GIT_LIMIT) {
        Ok(answer) => Ok(Some((
            answer.status.success(),
            answer.output.trim().to_owned(),
        ))),
        Err(error) => {
            let cause = error.downcast_ref::<std::io::Error>();
            match cause.is_some_and(|cause| cause.kind() == ErrorKind::NotFound) {
                true => Ok(None),
                false => Err(error),
            }
        }
    }
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

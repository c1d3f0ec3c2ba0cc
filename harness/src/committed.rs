//! The committed results and charts: what lies where, and what of it is made of the recorded rows. What is made is written
//! into a folder of its own first, laid out as the checkout is, so that it reads as if it had been made in its place.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use checkpoint::quoted;

use crate::checkout::{PLOTS, RESULTS};
use crate::presentation::Presentation;
use crate::recorded::subfolders;
use crate::summary::Spoilt;
use crate::{atomic, readme};

/// What a run records in its folder. Everything else there is made of it.
const RECORDED: [&str; 4] = ["runs.csv", "manifest.toml", "machine.toml", "timelines"];
/// The files that are made of it, without their extensions.
const MADE: [&str; 3] = ["schema", "summary", "report"];

/// Where the results of a manifest on a machine lie: `<machine>/<manifest>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(PathBuf);

impl Place {
    /// # Errors
    ///
    /// If one of the names is no name of a folder.
    pub fn new(machine: &str, manifest: &str) -> anyhow::Result<Place> {
        for name in [machine, manifest] {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
            ensure!(
                begins_well && name.chars().all(is_plain),
                "{} is no name of a folder of results: letters, digits, points and hyphens are",
                quoted(name)
            );
        }
        Ok(Place(Path::new(machine).join(manifest)))
    }

    pub fn results(&self, root: &Path) -> PathBuf {
        root.join(RESULTS).join(&self.0)
    }

    pub fn plots(&self, root: &Path) -> PathBuf {
        root.join(PLOTS).join(&self.0)
    }
}

/// A file that is not what is made of the rows, with its path below the root.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    Differs(PathBuf),
    Missing(PathBuf),
    /// Nothing would write it any more.
    Stale(PathBuf),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Differs(path) => write!(f, "differs: {}", path.display()),
            Difference::Missing(path) => write!(f, "missing: {}", path.display()),
            Difference::Stale(path) => write!(f, "stale:   {}", path.display()),
        }
    }
}

/// Every place of committed results.
pub fn places(root: &Path) -> Vec<Place> {
    let results = root.join(RESULTS);
    let folders = subfolders(&results)
        .into_iter()
        .flat_map(|m| subfolders(&m));
    folders
        .filter(|folder| folder.join("runs.csv").is_file() && !is_set_aside(folder))
        .filter_map(|folder| Some(Place(folder.strip_prefix(&results).ok()?.to_owned())))
        .collect()
}

/// Earlier results that a run has moved out of its way are not tracked.
fn is_set_aside(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.contains("-until-")
}

/// Copies what is recorded in `from` to its place below `root`, and makes there everything that is made of it.
pub fn make(from: &Path, place: &Place, root: &Path) -> anyhow::Result<()> {
    let results = place.results(root);
    for name in RECORDED {
        copy(&from.join(name), &results.join(name))?;
    }
    let plots = Some(place.plots(root));
    Presentation::of(&results, plots, Spoilt::LeftOut)?.write()
}

/// A file, or the files in a folder; nothing where there is neither.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let Ok(about) = std::fs::symlink_metadata(from) else {
        return Ok(());
    };
    // What a link leads to was not recorded there.
    ensure!(
        !about.is_symlink(),
        "{}: is a link, and is not copied",
        from.display()
    );
    if about.is_dir() {
        for file in files(from)? {
            copy(&from.join(&file), &to.join(&file))?;
        }
    } else if about.is_file() {
        let folder = to.parent().expect("it is below a root");
        let copied = std::fs::create_dir_all(folder).and_then(|()| std::fs::copy(from, to));
        copied
            .with_context(|| format!("{}: cannot be copied to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// The names of the files in a folder; none where there is no folder.
fn files(folder: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    let is_folder = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let files = entries.flatten().filter(|entry| !is_folder(entry));
    Ok(files.map(|file| PathBuf::from(file.file_name())).collect())
}

/// What is made of all committed rows, and how what lies below the root differs from it.
pub struct Comparison<'a> {
    root: &'a Path,
    /// Made anew, with the layout of the root.
    made: tempfile::TempDir,
    pub differences: Vec<Difference>,
}

impl Comparison<'_> {
    /// Makes everything anew, and compares it to the byte.
    pub fn of(root: &Path) -> anyhow::Result<Comparison<'_>> {
        let mut comparison = Comparison {
            root,
            made: tempfile::tempdir().context("no temporary folder can be made")?,
            differences: Vec::new(),
        };
        let places = places(root);
        for place in &places {
            make(&place.results(root), place, comparison.made.path())?;
            let is_made = |file: &Path| {
                let stem = file.file_stem().unwrap_or_default();
                MADE.iter().any(|made| stem == *made)
            };
            comparison.compare(&Path::new(RESULTS).join(&place.0), is_made)?;
            comparison.compare(&Path::new(PLOTS).join(&place.0), |_| true)?;
        }
        comparison.find_charts_without_results(&places)?;
        comparison.compare_readme()?;
        comparison.differences.sort();
        Ok(comparison)
    }

    /// Compares a folder with what is made for it; a file that would not be there is stale where it `is_made`.
    fn compare(&mut self, folder: &Path, is_made: impl Fn(&Path) -> bool) -> anyhow::Result<()> {
        let (made, there) = (self.made.path().join(folder), self.root.join(folder));
        let (made_files, there_files) = (files(&made)?, files(&there)?);
        for file in &made_files {
            let path = folder.join(file);
            if !there_files.contains(file) {
                self.differences.push(Difference::Missing(path));
            } else if read(&made.join(file))? != read(&there.join(file))? {
                self.differences.push(Difference::Differs(path));
            }
        }
        let stale = there_files
            .difference(&made_files)
            .filter(|file| is_made(file));
        let stale = stale.map(|file| Difference::Stale(folder.join(file)));
        self.differences.extend(stale);
        Ok(())
    }

    fn find_charts_without_results(&mut self, places: &[Place]) -> anyhow::Result<()> {
        let plots = self.root.join(PLOTS);
        for folder in std::iter::once(plots.clone()).chain(subfolders(&plots)) {
            let stray = files(&folder)?;
            let folder = Path::new(PLOTS).join(folder.strip_prefix(&plots)?);
            let stray = stray
                .into_iter()
                .map(|file| Difference::Stale(folder.join(file)));
            self.differences.extend(stray);
        }
        for folder in subfolders(&plots).iter().flat_map(|m| subfolders(m)) {
            let place = Place(folder.strip_prefix(&plots)?.to_owned());
            if !places.contains(&place) {
                let path = Path::new(PLOTS).join(place.0);
                let stale = files(&folder)?.into_iter().map(|file| path.join(file));
                self.differences.extend(stale.map(Difference::Stale));
            }
        }
        Ok(())
    }

    fn compare_readme(&mut self) -> anyhow::Result<()> {
        let name = Path::new(readme::FILE);
        let (text, renewed) = readme::regenerated(self.root)?;
        if text != renewed {
            self.differences.push(Difference::Differs(name.to_owned()));
        }
        atomic::write(&self.made.path().join(name), renewed)
    }

    /// Makes what lies below the root what it should be.
    pub fn apply(&self) -> anyhow::Result<()> {
        for difference in &self.differences {
            match difference {
                Difference::Differs(path) | Difference::Missing(path) => {
                    let to = self.root.join(path);
                    let folder = to.parent().expect("it is below the root");
                    std::fs::create_dir_all(folder)
                        .with_context(|| format!("{}: cannot be made", folder.display()))?;
                    atomic::write(&to, read(&self.made.path().join(path))?)?;
                }
                Difference::Stale(path) => {
                    let path = self.root.join(path);
                    std::fs::remove_file(&path)
                        .with_context(|| format!("{}: cannot be removed", path.display()))?;
                }
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))
}

/// What README.md, those of crates, experiments and examples, and the committed reports say of files that are not there, each with
/// the file it stands in.
pub fn broken_links(root: &Path) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    let reports = places(root)
        .into_iter()
        .map(|place| place.results(root).join("report.md"));
    let mut broken = Vec::new();
    let folders = ["crates", "experiments", "examples"].map(|folder| root.join(folder));
    let inner = folders.iter().flat_map(|folder| subfolders(folder));
    let inner: Vec<PathBuf> = inner.collect();
    let folders = inner.iter().chain(&folders).map(PathBuf::as_path);
    for file in reports
        .chain(
            folders
                .chain([root])
                .map(|folder| folder.join(readme::FILE)),
        )
        .filter(|file| file.exists())
    {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let folder = file.parent().unwrap_or(root);
        let shown = file.strip_prefix(root).unwrap_or(&file).to_owned();
        let links = crate::links::broken(&text, folder).into_iter();
        let links = links.chain(crate::links::missing_sources(&text, root));
        broken.extend(links.map(|link| (shown.clone(), link)));
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_among_the_committed_results_has_a_plain_name() {
        assert!(Place::new("amd-epyc-2c-24g", "quick").is_ok());
        for name in [".git", "-rf", "<img>", "a|b", "a/b", "..", "", "a b"] {
            assert!(Place::new(name, "quick").is_err(), "{name}");
            assert!(Place::new("box", name).is_err(), "{name}");
        }
    }
}

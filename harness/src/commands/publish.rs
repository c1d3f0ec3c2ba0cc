//! `harness publish`: a folder of results, taken among the committed ones.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::checkout::{self, shown};
use crate::cli::PublishArgs;
use crate::committed::{Place, make};
use crate::record::Record;
use crate::results::read_runs;

pub fn publish(args: &PublishArgs) -> anyhow::Result<()> {
    let root = match checkout::root() {
        Some(root) => root,
        None => std::env::current_dir().context("there is no current folder")?,
    };
    let published = publish_to(&root, &args.results, args.force)?;
    println!("results: {}", shown(&published.results).display());
    println!("charts:  {}", shown(&published.plots).display());
    if published.replaced {
        println!("what was there before is replaced");
    }
    Ok(())
}

/// What was written, and where.
pub struct Published {
    pub results: PathBuf,
    pub plots: PathBuf,
    pub replaced: bool,
}

/// Copies what is recorded in the folder `from` to `results/<machine>/<manifest>` below `root`, and makes summary, report and
/// charts there. What was there before is touched only when all of it is made.
///
/// # Errors
///
/// If nothing is recorded, if the rows are of several machines, or, unless `force`, if the code that made them is not known.
pub fn publish_to(root: &Path, from: &Path, force: bool) -> anyhow::Result<Published> {
    let records = read_runs(from)?;
    if !force {
        refuse_unknown_code(&records, from)?;
    }
    let place = place_of(&records, from)?;
    let (results, plots) = (place.results(root), place.plots(root));
    let same = |path: &Path| path.canonicalize().ok();
    ensure!(
        same(from) != same(&results),
        "{}: is published already: `harness regenerate` writes again what is made of it",
        from.display()
    );
    // On the same file system, so that it can be moved.
    let made = tempfile::Builder::new()
        .prefix(".publish-")
        .tempdir_in(root);
    let made = made.with_context(|| format!("{}: cannot be written", root.display()))?;
    make(from, &place, made.path())?;
    let replaced = results.exists();
    replace(&results, &place.results(made.path()))?;
    replace(&plots, &place.plots(made.path()))?;
    Ok(Published {
        results,
        plots,
        replaced,
    })
}

/// Nobody else could make such rows again.
fn refuse_unknown_code(records: &[Record], from: &Path) -> anyhow::Result<()> {
    let count = |is: fn(&&Record) -> bool| records.iter().filter(is).count();
    let dirty = count(|record| record.dirty == Some(true));
    let unknown = count(|record| record.commit.is_none());
    let (how_many, why) = match (dirty, unknown) {
        (0, 0) => return Ok(()),
        (0, unknown) => (unknown, "name no commit"),
        (dirty, _) => (dirty, "were made while sources differed from the commit"),
    };
    bail!(
        "{}: {how_many} of {} runs {why}, so that nobody can make them again: run them of a clean commit, or give --force",
        from.display(),
        records.len()
    )
}

/// By the machine and the manifest that the rows name. A folder that is called after more than the manifest, such as the
/// checkpoint that was loaded, keeps its name.
fn place_of(records: &[Record], from: &Path) -> anyhow::Result<Place> {
    let last = records.last().expect("a folder without rows is not read");
    let mut machines = records.iter().map(|record| &record.machine);
    if let Some(other) = machines.find(|machine| **machine != last.machine) {
        bail!(
            "{}: holds runs of {other} and of {}",
            from.display(),
            last.machine
        );
    }
    let folder = std::path::absolute(from)?;
    let folder = folder.file_name().unwrap_or_default().to_string_lossy();
    let longer = format!("{}-", last.manifest);
    let is_longer = folder.starts_with(&longer) && !folder.contains("-until-");
    let name = if is_longer { &*folder } else { &last.manifest };
    Place::new(&last.machine, name)
}

fn replace(old: &Path, new: &Path) -> anyhow::Result<()> {
    let cannot = || format!("{}: cannot be replaced", old.display());
    if old.exists() {
        std::fs::remove_dir_all(old).with_context(cannot)?;
    }
    let folder = old.parent().expect("it is below a root");
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::rename(new, old))
        .with_context(cannot)
}

//! `harness publish`: a folder of results, taken among the committed ones.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use checkpoint::read_text;

use crate::checkout::{self, shown};
use crate::cli::PublishArgs;
use crate::committed::{Place, make};
use crate::manifest::{MAX_BYTES, Manifest};
use crate::presentation::is_simulated;
use crate::record::Record;
use crate::results::{MACHINE, MANIFEST, read_rows, read_runs};

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
/// If nothing is recorded, if the rows are of several machines or manifests; or, unless `force`, if the code that made them is not
/// known, if what belongs to them is missing or of another run, or if what stands there is not in the repository.
pub fn publish_to(root: &Path, from: &Path, force: bool) -> anyhow::Result<Published> {
    let records = read_runs(from)?;
    ensure!(
        !is_simulated(&records),
        "{}: was measured on a simulated device, which is for tests: it is never published",
        from.display()
    );
    let place = place_of(&records, from)?;
    let (results, plots) = (place.results(root), place.plots(root));
    if !force {
        refuse_unknown_code(&records, from, root)?;
        refuse_incomplete(&records, from)?;
        refuse_to_lose(&[&results, &plots], root)?;
    }
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

/// Git is asked for each.
const MOST_COMMITS: usize = 1000;

/// Nobody else could make such rows again.
fn refuse_unknown_code(records: &[Record], from: &Path, root: &Path) -> anyhow::Result<()> {
    let commits: BTreeSet<&String> = records
        .iter()
        .filter_map(|row| row.commit.as_ref())
        .collect();
    ensure!(
        commits.len() <= MOST_COMMITS,
        "{}: its rows are of {} commits: no more than {MOST_COMMITS} are published together",
        from.display(),
        commits.len()
    );
    for commit in commits {
        let object = format!("{commit}^{{commit}}");
        // Rows are anybody's, and what begins with `-` would be an option.
        let is_one = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_hexdigit());
        let known = match is_one {
            true => git(root, &["cat-file", "-e", &object])?,
            false => Some((false, String::new())),
        };
        ensure!(
            known.is_none_or(|(is_known, _)| is_known),
            "{}: its commit {commit} is not in this repository, so that nobody can make the runs again: give --force to \
             publish them all the same",
            from.display()
        );
    }
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

/// What the rows rest on: the manifest whose digest they name, and the machine.
fn refuse_incomplete(records: &[Record], from: &Path) -> anyhow::Result<()> {
    let last = records.last().expect("a folder without rows is not read");
    let text = |name: &str| {
        let path = from.join(name);
        let text = read_text(&path, MAX_BYTES);
        text.with_context(|| {
            format!(
                "{}: belongs to the rows, and cannot be read",
                path.display()
            )
        })
    };
    let manifest = Manifest::parse(last.manifest.clone(), MANIFEST, &text(MANIFEST)?);
    let manifest = manifest.map_err(|error| anyhow!("{}: {error}", from.display()))?;
    ensure!(
        manifest.digest == last.manifest_sha256,
        "{}: the rows name the manifest of SHA-256 {:.12}, and {MANIFEST} there has {:.12}",
        from.display(),
        last.manifest_sha256,
        manifest.digest
    );
    let machine: toml::Table = text(MACHINE)?.parse().with_context(|| {
        format!(
            "{}: is no description of a machine",
            from.join(MACHINE).display()
        )
    })?;
    let name = machine.get("machine").and_then(|name| name.as_str());
    ensure!(
        name == Some(&last.machine),
        "{}: the rows are of {}, and {MACHINE} there of {}",
        from.display(),
        last.machine,
        name.unwrap_or("none")
    );
    ensure!(
        records.iter().any(Record::is_measured),
        "{}: none of its {} runs ended ok and verified",
        from.display(),
        records.len()
    );
    let (_, dropped) = read_rows(from)?;
    ensure!(
        dropped == 0,
        "{}: {dropped} lines of runs.csv cannot be read: take them out first",
        from.display()
    );
    Ok(())
}

/// That what stands there can be had again from the repository.
fn refuse_to_lose(folders: &[&Path], root: &Path) -> anyhow::Result<()> {
    for folder in folders.iter().filter(|folder| folder.exists()) {
        let path = folder.display().to_string();
        let changed = git(root, &["status", "--porcelain", "--ignored", "--", &path])?;
        let Some((true, changed)) = changed else {
            continue;
        };
        ensure!(
            changed.is_empty(),
            "{path}: what stands there is not committed, and would be lost: commit it, move it away, or give --force"
        );
    }
    Ok(())
}

/// As [`checkout::git`]; `None` outside of a repository, too.
fn git(root: &Path, arguments: &[&str]) -> anyhow::Result<Option<(bool, String)>> {
    match root.join(".git").exists() {
        true => checkout::git(root, arguments),
        false => Ok(None),
    }
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
    let mut manifests = records.iter().map(|record| &record.manifest);
    if let Some(other) = manifests.find(|manifest| **manifest != last.manifest) {
        bail!(
            "{}: holds runs of the manifests {other} and {}",
            from.display(),
            last.manifest
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

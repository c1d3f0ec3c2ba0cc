//! A folder of results: who holds it, its rows, its timelines. One row a run, appended and synced as soon as the
//! run ends.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use checkpoint::{is_there, read_text, read_whole};
use meter::Sample;

use crate::atomic;
use crate::checkout::shown;
use crate::exit::Ended;
use crate::record::{self, Dropped, Record, Rows, SCHEMA, SCHEMA_FILE, round};

/// Who holds a folder says so in this file.
const LOCK: &str = ".lock";
const HELD_BY: &str = "process ";
/// What the rows are called.
const RUNS: &str = "runs.csv";
/// What the manifest is called that is kept with the results.
pub const MANIFEST: &str = "manifest.toml";
/// What the description of the machine is called that is kept with the results.
pub const MACHINE: &str = "machine.toml";
/// It is a page of text.
pub const MAX_MACHINE_BYTES: u64 = 1 << 20;
/// Some hundred samples, of a hundred letters each.
const MAX_TIMELINE_BYTES: u64 = 256 << 10;
/// A row has about half a KiB, and a record at most a million.
pub const MAX_RUNS_BYTES: u64 = 1 << 29;

/// More than any manifest asks for: tables and charts of more are read by nobody, and configurations are compared with each other.
const MOST_CONFIGURATIONS: usize = 5000;

/// What is written into a folder of results, where it has a name that others may use as well.
const WRITTEN: [&str; 10] = [
    RUNS,
    MACHINE,
    MANIFEST,
    SCHEMA_FILE,
    "summary.csv",
    "summary.md",
    "report.md",
    "report.html",
    "plots",
    "logits",
];

/// A folder of results that this process holds, and appends to.
pub struct Results {
    folder: PathBuf,
    runs: File,
    /// Bytes of whole rows.
    whole_bytes: u64,
    _lock: File,
}

impl Results {
    /// Takes hold of the folder, creating it first. Unless `keep`, what was recorded there before is kept under
    /// another name. A row that an interrupted write left half is cut off. Returns the rows that are there.
    pub fn open(folder: &Path, keep: bool) -> anyhow::Result<(Results, Vec<Record>)> {
        refuse_foreign(folder)?;
        let mut lock = hold(folder)?;
        if !keep && runs_path(folder).exists() {
            set_aside(folder)?;
            lock = hold(folder)?;
        }
        let timelines = folder.join("timelines");
        refuse_link(&timelines)?;
        refuse_link(&runs_path(folder))?;
        std::fs::create_dir_all(&timelines).with_context(|| unwritable(&timelines))?;
        let path = runs_path(folder);
        let bytes = match path.try_exists().with_context(|| unwritable(&path))? {
            true => read_whole(&path, MAX_RUNS_BYTES)?,
            false => Vec::new(),
        };
        let whole = whole_rows(&bytes);
        if whole.len() < bytes.len() {
            let line = 1 + whole.iter().filter(|&&byte| byte == b'\n').count();
            eprintln!(
                "warning: {}: line {line} has no end, as an interrupted write leaves it: it is cut off, and its run made again",
                path.display()
            );
        }
        let Rows { records, dropped } = record::read(whole, &path, &devices(folder))?;
        tell_dropped(&path, &dropped);
        if let Some(old) = records.iter().find(|record| record.schema != SCHEMA) {
            bail!(
                "{}: was recorded by another version of the harness (schema {}, this one writes {SCHEMA}): go on \
                 in another folder with --out, or leave out --resume",
                path.display(),
                old.schema
            );
        }
        let own = record::write_row(&Record::unmeasured(), true)?;
        if !whole.is_empty() && first_line(whole) != first_line(&own) {
            bail!(
                "{}: its columns are not those of this harness: go on in another folder with --out",
                path.display()
            );
        }
        let runs = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| unwritable(&path))?;
        let whole_bytes = whole.len() as u64;
        runs.set_len(whole_bytes)
            .and_then(|()| runs.sync_all())
            .with_context(|| unwritable(&path))?;
        let results = Results {
            folder: folder.to_owned(),
            runs,
            whole_bytes,
            _lock: lock,
        };
        Ok((results, records))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Appends a row and its timeline, and waits until they are on the disk.
    ///
    /// # Errors
    ///
    /// If the disk refuses; what was recorded before is as it was.
    pub fn append(&mut self, record: &Record, timeline: &[Sample]) -> anyhow::Result<()> {
        let path = runs_path(&self.folder);
        let what_stays = || {
            format!(
                "{}: the run could not be recorded; what was recorded before is whole",
                path.display()
            )
        };
        if !timeline.is_empty() {
            let path = timeline_path(&self.folder, &record.run_id);
            write_timeline(&path, timeline).with_context(what_stays)?;
        }
        let row = record::write_row(record, self.whole_bytes == 0)?;
        // In one write: a reader never sees half a row of a harness that is still running.
        let written = self
            .runs
            .write_all(&row)
            .and_then(|()| self.runs.sync_data());
        if let Err(error) = written {
            // A full disk may have taken the row's beginning.
            let _ = self.runs.set_len(self.whole_bytes);
            return Err(error).with_context(what_stays);
        }
        self.whole_bytes += row.len() as u64;
        Ok(())
    }
}

/// Every whole row of a folder of results. Nobody is kept from writing meanwhile.
pub fn read_runs(folder: &Path) -> anyhow::Result<Vec<Record>> {
    Ok(read_rows(folder)?.0)
}

/// As [`read_runs`], with how many lines could not be read, which are told.
pub fn read_rows(folder: &Path) -> anyhow::Result<(Vec<Record>, usize)> {
    let path = match folder.is_file() {
        true => folder.to_owned(),
        false => runs_path(folder),
    };
    let bytes = read_whole(&path, MAX_RUNS_BYTES)
        .with_context(|| format!("{}: no results can be read there", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let whole = whole_rows(&bytes);
    let Rows {
        records,
        mut dropped,
    } = record::read(whole, &path, &devices(folder))?;
    if whole.len() < bytes.len() {
        dropped.push(Dropped {
            line: 1 + whole.iter().filter(|&&byte| byte == b'\n').count() as u64,
            reason: "it has no end: it is being written, or was interrupted".to_owned(),
        });
    }
    tell_dropped(&path, &dropped);
    ensure!(
        !records.is_empty(),
        "{}: nothing is recorded there yet",
        path.display()
    );
    let mut configurations = HashSet::new();
    for record in &records {
        configurations.insert(record.configuration());
        ensure!(
            configurations.len() <= MOST_CONFIGURATIONS,
            "{}: its rows are of more than {MOST_CONFIGURATIONS} configurations: divide them among folders",
            path.display()
        );
    }
    Ok((records, dropped.len()))
}

/// The timeline of a run, where one was recorded.
pub fn read_timeline(folder: &Path, run_id: &str) -> anyhow::Result<Vec<Sample>> {
    let path = timeline_path(folder, run_id);
    if !is_there(&path) {
        return Ok(Vec::new());
    }
    let text = read_whole(&path, MAX_TIMELINE_BYTES)?;
    let rows = csv::Reader::from_reader(&text[..]).into_deserialize();
    let rows: Result<Vec<Sample>, _> = rows.collect();
    let rows = rows.with_context(|| format!("{}: is no timeline", path.display()))?;
    let times = || rows.iter().map(|sample| sample.time_seconds);
    ensure!(
        times().all(|time| (0.0..1e9).contains(&time)) && times().is_sorted(),
        "{}: is no timeline: its times are not in order",
        path.display()
    );
    Ok(rows)
}

/// That what is written into is no link: a folder of results that was downloaded may have links to anywhere.
pub fn refuse_link(path: &Path) -> anyhow::Result<()> {
    ensure!(
        !path.is_symlink(),
        "{}: is a link, and what is written there would land elsewhere: put a folder or a file in its place",
        path.display()
    );
    Ok(())
}

/// That nobody else's files are replaced: where something has a name that is written here, our rows are there, too.
fn refuse_foreign(folder: &Path) -> anyhow::Result<()> {
    let path = runs_path(folder);
    let is_ours = path.is_file() && are_ours(&read_whole(&path, MAX_RUNS_BYTES)?, &path)?;
    let mut names = WRITTEN.into_iter();
    match names.find(|name| !is_ours && folder.join(name).symlink_metadata().is_ok()) {
        Some(name) => {
            let message = format!(
                "--out {}: holds no results of this program, but `{name}`, which would be replaced: choose another folder",
                folder.display()
            );
            Err(Ended::Usage(message).into())
        }
        None => Ok(()),
    }
}

/// Whether these are rows as they are written here, or what an interrupted write left of the first line.
fn are_ours(bytes: &[u8], path: &Path) -> anyhow::Result<bool> {
    let own = record::write_row(&Record::unmeasured(), true)?;
    Ok(match whole_rows(bytes) {
        [] => own.starts_with(bytes),
        whole => record::read(whole, path, &BTreeMap::new()).is_ok(),
    })
}

/// Takes hold of the folder for as long as this process lives, however it ends.
fn hold(folder: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(folder).with_context(|| unwritable(folder))?;
    let path = folder.join(LOCK);
    let mut lock = atomic::open_in_place(&path).with_context(|| unwritable(&path))?;
    let mut holder = Vec::new();
    let read = Read::by_ref(&mut lock)
        .take(1 << 10)
        .read_to_end(&mut holder);
    read.with_context(|| unwritable(&path))?;
    let holder = String::from_utf8_lossy(&holder);
    if !(holder.is_empty() || holder.starts_with(HELD_BY)) {
        let message = format!(
            "--out {}: its `{LOCK}` is no file of this program: choose another folder",
            folder.display()
        );
        return Err(Ended::Usage(message).into());
    }
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            bail!(
                "{}: is held by another harness ({}): wait until it has ended, or choose another folder with --out",
                folder.display(),
                holder.trim()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("{}: cannot be locked", path.display()));
        }
    }
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    // As long as any other: nothing is cut off.
    let holder = format!("{HELD_BY}{}, since {now}", std::process::id());
    let holder = format!("{holder:<48}\n");
    lock.rewind()
        .and_then(|()| lock.write_all(holder.as_bytes()))
        .with_context(|| unwritable(folder))?;
    // What a harness that was killed has left: nobody else writes here now.
    for folder in [
        folder.to_owned(),
        folder.join("timelines"),
        folder.join("plots"),
    ] {
        atomic::remove_partial(&folder);
    }
    Ok(lock)
}

/// What was recorded there before is kept under another name.
fn set_aside(folder: &Path) -> anyhow::Result<()> {
    // To the nanosecond: two runs of a tiny manifest may end in one second.
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S.%9fZ");
    let immovable = || format!("{}: the results there cannot be moved", folder.display());
    // A link to a folder stays one.
    let folder = folder.canonicalize().with_context(immovable)?;
    let mut aside = folder.as_os_str().to_owned();
    aside.push(format!("-until-{now}"));
    std::fs::rename(&folder, &aside).with_context(immovable)?;
    std::fs::create_dir(&folder).with_context(immovable)?;
    let aside = shown(Path::new(&aside));
    eprintln!("earlier results are kept in {}", aside.display());
    Ok(())
}

fn whole_rows(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte == b'\n');
    &bytes[..end.map_or(0, |end| end + 1)]
}

fn first_line(bytes: &[u8]) -> &[u8] {
    bytes
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default()
}

/// What each device of a folder's machine is, where the folder tells.
fn devices(folder: &Path) -> BTreeMap<String, String> {
    let machine = read_text(&folder.join(MACHINE), MAX_MACHINE_BYTES).unwrap_or_default();
    let machine: Option<toml::Table> = machine.parse().ok();
    let devices = machine.and_then(|mut machine| machine.remove("devices"));
    devices
        .and_then(|devices| devices.try_into().ok())
        .unwrap_or_default()
}

/// Names the lines that are left out. They stay in the file as they are.
fn tell_dropped(path: &Path, dropped: &[Dropped]) {
    const TOLD: usize = 5;
    for Dropped { line, reason } in dropped.iter().take(TOLD) {
        eprintln!(
            "warning: {}: line {line} is left out: {reason}",
            path.display()
        );
    }
    if dropped.len() > TOLD {
        let more = dropped.len() - TOLD;
        eprintln!(
            "warning: {}: {more} more lines are left out",
            path.display()
        );
    }
}

fn write_timeline(path: &Path, timeline: &[Sample]) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for sample in timeline {
        let time_seconds = round(sample.time_seconds, 1e4);
        writer.serialize(Sample {
            time_seconds,
            ..*sample
        })?;
    }
    atomic::write(path, writer.into_inner()?)
}

fn unwritable(path: &Path) -> String {
    format!("{}: results cannot be written there", path.display())
}

fn runs_path(folder: &Path) -> PathBuf {
    folder.join(RUNS)
}

fn timeline_path(folder: &Path, run_id: &str) -> PathBuf {
    folder.join("timelines").join(format!("{run_id}.csv"))
}

#[cfg(test)]
mod tests {
    use lab::{Outcome, Status};

    use super::*;

    fn example(run_id: &str) -> Record {
        let mut record = Record {
            run_id: run_id.to_owned(),
            ..Record::unmeasured()
        };
        record.fill(&Outcome::ended(Status::Failed, "a reason, with a comma"));
        record
    }

    fn ids(records: &[Record]) -> Vec<&str> {
        records.iter().map(|record| &*record.run_id).collect()
    }

    #[test]
    fn what_was_recorded_is_read_again_and_a_half_row_is_never_read_and_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (mut results, none) = Results::open(folder.path(), true).unwrap();
        assert!(none.is_empty());
        results.append(&example("a"), &[]).unwrap();
        results.append(&example("b"), &[]).unwrap();
        drop(results);
        let path = runs_path(folder.path());
        let whole = std::fs::read(&path).unwrap();
        let row = whole.len() - whole_rows(&whole[..whole.len() - 1]).len();
        for cut in 1..row {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(ids(&read_runs(folder.path()).unwrap()), ["a"]);
            let (mut results, rows) = Results::open(folder.path(), true).unwrap();
            assert_eq!(ids(&rows), ["a"]);
            results.append(&example("c"), &[]).unwrap();
            assert_eq!(ids(&read_runs(folder.path()).unwrap()), ["a", "c"]);
        }
    }

    #[test]
    fn a_folder_is_held_by_one_harness_and_the_other_is_told_by_which() {
        let folder = tempfile::tempdir().unwrap();
        let held = Results::open(folder.path(), true).unwrap();
        let refused = Results::open(folder.path(), true).err().unwrap();
        let said = format!("{refused:#}");
        let me = format!("process {}", std::process::id());
        assert!(said.contains(&me) && said.contains("--out"), "{said}");
        drop(held);
        assert!(Results::open(folder.path(), true).is_ok());
    }

    #[test]
    fn nothing_in_a_folder_that_never_held_results_is_replaced() {
        for name in WRITTEN {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(name), "mine").unwrap();
            for keep in [true, false] {
                let refused = Results::open(folder.path(), keep).err().unwrap();
                let said = refused.to_string();
                assert!(said.contains(&format!("`{name}`")), "{said}");
                assert_eq!(refused.downcast_ref::<Ended>().unwrap().code(), 2);
            }
            let entries = std::fs::read_dir(folder.path()).unwrap();
            assert_eq!(entries.count(), 1, "{name}: something was written");
            let text = std::fs::read_to_string(folder.path().join(name));
            assert_eq!(text.unwrap(), "mine");
        }
        // What has another name is in nobody's way.
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        assert!(Results::open(folder.path(), false).is_ok());
    }

    #[test]
    fn rows_of_an_older_version_are_read_and_not_mixed_with_new_ones() {
        let folder = tempfile::tempdir().unwrap();
        let row = String::from_utf8(record::write_row(&example("a"), true).unwrap()).unwrap();
        let (header, row) = row.split_once('\n').unwrap();
        let row = row.replacen(&SCHEMA.to_string(), "1", 1);
        std::fs::write(runs_path(folder.path()), format!("{header}\n{row}")).unwrap();
        assert_eq!(read_runs(folder.path()).unwrap()[0].schema, 1);
        let refused = Results::open(folder.path(), true).err().unwrap();
        assert!(format!("{refused:#}").contains("schema 1"), "{refused:#}");
    }

    #[test]
    fn a_foreign_row_is_left_out_and_never_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        let (mut results, _) = Results::open(folder.path(), true).unwrap();
        results.append(&example("a"), &[]).unwrap();
        drop(results);
        let path = runs_path(folder.path());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(b"what,is,this\n");
        std::fs::write(&path, &bytes).unwrap();
        let (mut results, rows) = Results::open(folder.path(), true).unwrap();
        assert_eq!(ids(&rows), ["a"]);
        results.append(&example("b"), &[]).unwrap();
        assert_eq!(ids(&read_runs(folder.path()).unwrap()), ["a", "b"]);
        assert!(std::fs::read(&path).unwrap().starts_with(&bytes));
    }

    #[test]
    fn a_row_says_what_its_device_is_and_a_former_one_is_told_by_its_machine() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(MACHINE), "[devices]\nflex = 'a CPU'\n").unwrap();
        assert_eq!(devices(folder.path())["flex"], "a CPU");
        assert!(devices(&folder.path().join("nowhere")).is_empty());
    }
}

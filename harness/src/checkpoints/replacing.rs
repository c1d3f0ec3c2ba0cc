//! What `finetune` may write to: never a file that it reads, and of what is there only what is of the same kind.

use std::collections::BTreeSet;
use std::fs::FileType;
use std::path::{Component, Path, PathBuf};

use checkpoint::{Checkpoint, Format};
use gpt2::layout::Layouts;
use lab::is_optimizer_state;

use super::sidecar;
use crate::cli::FinetuneArgs;
use crate::exit::Ended;

const SAVE: &str = "--save";
const SAVE_OPTIMIZER: &str = "--save-optimizer";

/// Refuses what would be lost by saving: before anything is loaded.
pub fn check(args: &FinetuneArgs) -> anyhow::Result<()> {
    let (model, state) = (args.save.as_deref(), args.save_optimizer.as_deref());
    if model.is_none() && state.is_none() {
        return Ok(());
    }
    let layouts = Layouts::of(&args.model.reading.reading())?;
    let original = layouts.open(&args.model.checkpoint)?.checkpoint;
    let store = &args.model.store.checkpoints;
    let targets = [(SAVE, model), (SAVE_OPTIMIZER, state)];
    for (option, path) in targets
        .into_iter()
        .filter_map(|(option, path)| Some((option, path?)))
    {
        check_name(option, path)
            .and_then(|()| check_apart(option, path, &args.model.checkpoint, &original))
            .and_then(|()| check_outside(option, path, store))?;
    }
    if let Some(path) = model {
        check_apart_from_states(path, args)
            .and_then(|()| check_regular(SAVE, path))
            .and_then(|()| check_model(path))?;
    }
    if let Some(path) = state {
        check_regular(SAVE_OPTIMIZER, path).and_then(|()| check_state(path))?;
    }
    Ok(())
}

/// Whether both lead to one file or would: by what they are, and not by how they are spelled.
pub fn is_same(a: &Path, b: &Path) -> bool {
    resolved(a) == resolved(b) || node(a).is_some_and(|number| node(b) == Some(number))
}

fn check_name(option: &str, path: &Path) -> Result<(), Ended> {
    let ending = path.extension().unwrap_or_default();
    match ending.eq_ignore_ascii_case("json") {
        true => refused(
            option,
            path,
            "a .json is a configuration, an index or a part of a tokenizer: give another name",
        ),
        false => Ok(()),
    }
}

/// That it is none of the files of the checkpoint that is read.
fn check_apart(
    option: &str,
    path: &Path,
    given: &Path,
    original: &Checkpoint,
) -> Result<(), Ended> {
    let files = original.tensors().iter().map(|tensor| &*tensor.file);
    let files: BTreeSet<&Path> = [given, original.path()].into_iter().chain(files).collect();
    let mut read = files.into_iter();
    let is_within = original.format() == Format::PerTensor && is_inside(path, original.path());
    match is_within || read.any(|file| is_same(file, path)) {
        true => refused(
            option,
            path,
            "is of the checkpoint that is read, which stays as it is: give another name",
        ),
        false => Ok(()),
    }
}

/// That it is in none of the folders that this program makes, for it makes them anew when their source changes.
fn check_outside(option: &str, path: &Path, store: &Path) -> Result<(), Ended> {
    let (path_resolved, store) = (resolved(path), resolved(store));
    let within = path_resolved.strip_prefix(&store).ok();
    let first = within.and_then(|within| within.components().next());
    let is_made = |first: Component<'_>| store.join(first).join(sidecar::FILE).exists();
    match first.is_some_and(is_made) {
        true => refused(
            option,
            path,
            "lies in a folder that this program prepares, and may prepare anew: save it elsewhere",
        ),
        false => Ok(()),
    }
}

/// That the trained model does not take the place of an optimizer's state, which is read or written in the same training.
fn check_apart_from_states(path: &Path, args: &FinetuneArgs) -> Result<(), Ended> {
    if let Some(state) = &args.save_optimizer {
        if is_same(path, state) {
            let message = "--save and --save-optimizer are one file: give each its own";
            return Err(Ended::Usage(message.to_owned()));
        }
        if is_inside(state, path) || is_inside(path, state) {
            let message = "--save and --save-optimizer lie in one another: give each its own place";
            return Err(Ended::Usage(message.to_owned()));
        }
    }
    match &args.resume_optimizer {
        Some(state) if is_same(path, state) => refused(
            SAVE,
            path,
            "is the file of --resume-optimizer: give another name",
        ),
        _ => Ok(()),
    }
}

/// That what is there, if anything, is a file or a folder: what is renamed onto a device or a pipe takes its place.
fn check_regular(option: &str, path: &Path) -> Result<(), Ended> {
    let Ok(there) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    let kind = there.file_type();
    match kind.is_file() || kind.is_dir() {
        true => Ok(()),
        false => refused(
            option,
            path,
            &format!("is {}, and no file: give the name of one", special(kind)),
        ),
    }
}

#[cfg(unix)]
fn special(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        kind if kind.is_symlink() => "a link",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn special(kind: FileType) -> &'static str {
    match kind.is_symlink() {
        true => "a link",
        false => "something that only this system knows",
    }
}

/// That a file that is there is a model's weights, and no more.
fn check_model(path: &Path) -> Result<(), Ended> {
    if !path.is_file() {
        return Ok(());
    }
    let why = match Checkpoint::open(path) {
        Err(_) => "is there, and no checkpoint",
        Ok(there) if is_optimizer_state(&there) => "is there, and an optimizer's state",
        Ok(there) if there.shard().is_some() => "is there, and one of the files of a checkpoint",
        Ok(there) if holds_more(path, &there) => {
            "is there, and holds more than weights, which would be lost"
        }
        Ok(_) => return Ok(()),
    };
    refused(SAVE, path, &format!("{why}: give another name"))
}

/// Whether a training program keeps something beside the state dict: its optimizer, say.
fn holds_more(path: &Path, there: &Checkpoint) -> bool {
    let is_state_dict = || {
        let whole = Checkpoint::open_at(path, "");
        whole.is_ok_and(|whole| whole.tensors().len() == there.tensors().len())
    };
    there.format() == Format::Pth && !(there.metadata().is_empty() && is_state_dict())
}

/// That a file that is there is an optimizer's state.
fn check_state(path: &Path) -> Result<(), Ended> {
    let is_state = || Checkpoint::open(path).is_ok_and(|there| is_optimizer_state(&there));
    match !path.is_file() || is_state() {
        true => Ok(()),
        false => refused(
            SAVE_OPTIMIZER,
            path,
            "is there, and no state of AdamW: give another name",
        ),
    }
}

fn refused(option: &str, path: &Path, why: &str) -> Result<(), Ended> {
    Err(Ended::Usage(format!("{option} {}: {why}", path.display())))
}

/// Where a path leads, with every link followed. What is not there yet can be no link.
fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut resolved = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                resolved.pop();
            }
            component => resolved.push(component),
        }
        if let Ok(real) = resolved.canonicalize() {
            resolved = real;
        }
    }
    resolved
}

fn is_inside(path: &Path, folder: &Path) -> bool {
    let (path, folder) = (resolved(path), resolved(folder));
    path != folder && path.starts_with(folder)
}

/// The number of a file on its disk: one that has two names is one.
#[cfg(unix)]
fn node(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn node(_: &Path) -> Option<(u64, u64)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_device_is_never_replaced() {
        let said = check_regular(SAVE, Path::new("/dev/null")).unwrap_err();
        assert!(said.to_string().contains("is a device"), "{said}");
    }

    #[test]
    fn files_are_one_by_what_they_are_and_not_by_how_they_are_spelled() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("folder")).unwrap();
        std::fs::write(at("folder/there"), "").unwrap();
        assert!(is_same(
            &at("folder/there"),
            &at("folder/../folder/./there")
        ));
        assert!(is_same(&at("new/a"), &at("new/../new/a")));
        assert!(!is_same(&at("new/a"), &at("new/b")));
        assert!(!is_same(&at("new/a"), &at("other/a")));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(at("folder"), at("link")).unwrap();
            std::fs::hard_link(at("folder/there"), at("second")).unwrap();
            assert!(is_same(&at("folder/there"), &at("link/there")));
            assert!(is_same(&at("folder/new"), &at("link/new")));
            assert!(is_same(&at("folder/there"), &at("second")));
        }
    }
}

//! Where companions are looked for: in the checkpoint itself, beside it, beside what a link leads to, and one folder up, as
//! trainers leave them.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use checkpoint::{Checkpoint, Format};
use gpt2::{Config, Size};
use serde_json::Value;

use super::{FILE, METADATA_KEY, Told, hugging_face, model_args};
use crate::exit::Ended;
use crate::json;

/// A `config.json` is small; anything larger is none.
const MAX_BYTES: u64 = 4 << 20;

/// What is told of a checkpoint in this layout, that was asked for as `given`: by itself, and by what lies beside it; where neither
/// tells, by what lies one folder up. `ignored` are fields that a person says are harmless.
///
/// # Errors
///
/// If what tells is unreadable, of another model, says something that is not understood, or contradicts another; or if nothing of
/// what is `ignored` is there.
pub fn find(
    given: &Path,
    checkpoint: &Checkpoint,
    layout: &str,
    ignored: &[String],
) -> anyhow::Result<Option<Told>> {
    let path = checkpoint.path().display().to_string();
    let metadata = checkpoint.metadata();
    let mut sources = Sources {
        ignored,
        // What can be said without a field of that name.
        fields: ["activation", "model_args", "tie_word_embeddings"]
            .map(str::to_owned)
            .into(),
        told: Vec::new(),
    };
    let names = metadata
        .keys()
        .flat_map(|key| [Some(&**key), key.rsplit('.').next()]);
    let names = names.flatten().map(str::to_owned);
    sources.fields.extend(names);
    let is_left_out = ignored.iter().any(|name| name == FILE);
    if let Some(text) = metadata.get(METADATA_KEY).filter(|_| !is_left_out) {
        sources.read(&format!("{path}: the configuration in its metadata"), text)?;
    }
    let is_pickle = matches!(checkpoint.format(), Format::Pth | Format::ShardedPth);
    if is_pickle && !ignored.iter().any(|name| name == "model_args") {
        let args = model_args::read(&path, metadata, ignored).map_err(|wrong| anyhow!(wrong))?;
        if args.is_some() && layout != "nanogpt" {
            bail!(
                "{path}: has `model_args`, as nanoGPT writes them, and its tensors lie as in the layout `{layout}`: which of the two \
                 forwards it is of is not known; without them (--ignore-config model_args) it is told by a config.json or --size"
            );
        }
        sources.told.extend(args);
    }
    let (own, above): (Vec<_>, Vec<_>) = places(given, checkpoint.path())
        .into_iter()
        .partition(|(_, is_own)| *is_own);
    sources.first_of(own, |_| true)?;
    if sources.told.is_empty() {
        // Higher up lies much that is called so, and is of no model.
        sources.first_of(above, is_of_a_model)?;
    }
    if let Some(unknown) = ignored.iter().find(|name| !sources.fields.contains(*name)) {
        let message =
            format!("--ignore-config {unknown}: nothing that is told of {path} has such a field");
        return Err(Ended::Usage(message).into());
    }
    let mut told = sources.told.into_iter();
    let Some(first) = told.next() else {
        return Ok(None);
    };
    let all = told.try_fold(first, Told::and);
    all.map(Some).map_err(|wrong| anyhow!(wrong))
}

/// That a `config.json` in this folder, where there is one, is of this model.
///
/// # Errors
///
/// If it is of another, or cannot be read.
pub fn check_beside(folder: &Path, config: &Config, ignored: &[String]) -> anyhow::Result<()> {
    let mut sources = Sources {
        ignored,
        fields: HashSet::new(),
        told: Vec::new(),
    };
    sources.first_of(vec![(folder.to_owned(), true)], |_| true)?;
    let Some(told) = sources.told.pop() else {
        return Ok(());
    };
    let read = told.complete(*config).map_err(|wrong| anyhow!(wrong))?;
    let says_tied = told.is_tied.map(|(is_tied, _)| is_tied);
    if read != *config || says_tied.is_some_and(|is_tied| is_tied != config.variant.is_tied) {
        bail!(
            "{}: is of another model than {}",
            told.by,
            Size::of(*config)
        );
    }
    Ok(())
}

/// What was found so far.
struct Sources<'a> {
    ignored: &'a [String],
    /// The names of all fields that are there.
    fields: HashSet<String>,
    told: Vec<Told>,
}

impl Sources<'_> {
    /// Reads the first `config.json` in one of these folders that is `meant`.
    fn first_of(
        &mut self,
        folders: Vec<(PathBuf, bool)>,
        meant: impl Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        for (folder, _) in folders {
            let file = folder.join(FILE);
            let by = file.display().to_string();
            // One that is there and cannot be read is not passed over: another may be of another model.
            match std::fs::symlink_metadata(&file) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => bail!("{by}: cannot be read: {error}"),
                Ok(_) => self.fields.insert(FILE.to_owned()),
            };
            if self.ignored.iter().any(|name| name == FILE) {
                continue;
            }
            let about = std::fs::metadata(&file)
                .map_err(|error| anyhow!("{by}: cannot be read: {error}"))?;
            if !about.is_file() || about.len() > MAX_BYTES {
                bail!("{by}: is no configuration of a model: a small file is expected");
            }
            let text = std::fs::read_to_string(&file)
                .map_err(|error| anyhow!("{by}: cannot be read: {error}"))?;
            let text = text.trim_start_matches('\u{feff}');
            if meant(text) {
                return self.read(&by, text);
            }
        }
        Ok(())
    }

    fn read(&mut self, by: &str, text: &str) -> anyhow::Result<()> {
        let checked = json::check(text.as_bytes());
        let value = checked.and_then(|()| serde_json::from_str::<Value>(text));
        let value = value.map_err(|error| {
            anyhow!(
                "{by}: is no JSON: {error}: mend it, or leave it out with --ignore-config {FILE}"
            )
        })?;
        let Some(object) = value.as_object() else {
            bail!("{by}: is no object of settings");
        };
        self.fields.extend(object.keys().cloned());
        let told = hugging_face::read(by, object, self.ignored).map_err(|wrong| anyhow!(wrong))?;
        self.told.push(told);
        Ok(())
    }
}

/// The folders to look in, and whether each is the checkpoint's own.
fn places(given: &Path, opened: &Path) -> Vec<(PathBuf, bool)> {
    let folder = |path: &Path| match path.is_dir() {
        true => Some(path.to_owned()),
        false => {
            let parent = path.parent()?;
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            Some(parent.to_owned())
        }
    };
    let target = std::fs::canonicalize(opened).ok();
    let own: Vec<PathBuf> = [Some(given), Some(opened), target.as_deref()]
        .into_iter()
        .flatten()
        .filter_map(folder)
        .collect();
    let above = own.iter().filter_map(|folder| {
        let folder = std::fs::canonicalize(folder).ok()?;
        Some(folder.parent()?.to_owned())
    });
    let above: Vec<PathBuf> = above.collect();
    let mut places: Vec<(PathBuf, bool)> = Vec::new();
    let all = own.into_iter().map(|folder| (folder, true));
    for (folder, is_own) in all.chain(above.into_iter().map(|folder| (folder, false))) {
        if !places.iter().any(|(known, _)| *known == folder) {
            places.push((folder, is_own));
        }
    }
    places
}

fn is_of_a_model(text: &str) -> bool {
    let object: Result<Value, _> = serde_json::from_str(text);
    let names = ["model_type", "n_head", "n_embd", "num_attention_heads"];
    object.is_ok_and(|object| names.iter().any(|name| object.get(name).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companions_are_looked_for_beside_a_file_beside_what_a_link_leads_to_and_one_folder_up() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().join("blobs/deep");
        std::fs::create_dir_all(&real).unwrap();
        std::fs::write(real.join("model.safetensors"), "").unwrap();
        let links = root.path().join("snapshots/a");
        std::fs::create_dir_all(&links).unwrap();
        let link = links.join("model.safetensors");
        #[cfg(unix)]
        std::os::unix::fs::symlink(real.join("model.safetensors"), &link).unwrap();
        let places = places(&link, &link);
        let folders: Vec<(PathBuf, bool)> = vec![
            (links.clone(), true),
            (real.clone(), true),
            (root.path().join("snapshots"), false),
            (root.path().join("blobs"), false),
        ];
        let canonical = |(folder, own): &(PathBuf, bool)| (folder.canonicalize().unwrap(), *own);
        let found: Vec<_> = places.iter().map(canonical).collect();
        let expected: Vec<_> = folders.iter().map(canonical).collect();
        assert_eq!(found, expected);
    }
}

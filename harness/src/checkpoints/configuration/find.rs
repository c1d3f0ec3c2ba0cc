//! Where companions are looked for: in the checkpoint itself, beside it, beside what a link leads to, and one folder up, as
//! trainers leave them.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use checkpoint::Checkpoint;
use serde_json::Value;

use super::{METADATA_KEY, Told, hugging_face, model_args};

const FILE: &str = "config.json";

/// A `config.json` is small; anything larger is none.
const MAX_BYTES: u64 = 4 << 20;

/// What is told of a checkpoint, that was asked for as `given`, by whoever tells first. `ignored` are fields that a person says
/// are harmless.
///
/// # Errors
///
/// If what tells is unreadable, of another model, or says something that is not understood.
pub fn find(
    given: &Path,
    checkpoint: &Checkpoint,
    ignored: &[String],
) -> anyhow::Result<Option<Told>> {
    let path = checkpoint.path().display().to_string();
    let metadata = checkpoint.metadata();
    if let Some(text) = metadata.get(METADATA_KEY) {
        let by = format!("{path}: the configuration in its metadata");
        return read(&by, text, ignored).map(Some);
    }
    let args = model_args::read(&path, metadata, ignored).map_err(|wrong| anyhow!(wrong))?;
    if args.is_some() {
        return Ok(args);
    }
    for (place, is_beside) in places(given, checkpoint.path()) {
        let file = place.join(FILE);
        let Ok(about) = std::fs::metadata(&file) else {
            continue;
        };
        if !about.is_file() || about.len() > MAX_BYTES {
            bail!(
                "{}: is no configuration of a model: a small file is expected",
                file.display()
            );
        }
        let by = file.display().to_string();
        let text = std::fs::read_to_string(&file)
            .map_err(|error| anyhow!("{by}: cannot be read: {error}"))?;
        // Higher up lies much that is called so, and is of no model.
        if !is_beside && !is_of_a_model(&text) {
            continue;
        }
        return read(&by, &text, ignored).map(Some);
    }
    Ok(None)
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

fn read(by: &str, text: &str, ignored: &[String]) -> anyhow::Result<Told> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        anyhow!("{by}: is no JSON: {error}: mend it, or give --size without it")
    })?;
    let Some(object) = value.as_object() else {
        bail!("{by}: is no object of settings");
    };
    hugging_face::read(by, object, ignored).map_err(|wrong| anyhow!(wrong))
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

//! What this program makes in a checkpoint's folder, by name. Only that is ever replaced or removed: what a user put there stays.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;

use anyhow::Context;
use checkpoint::Format;
use gpt2::Config;

use super::{REFERENCE, configuration, hugging_face};

/// Removes what was made of other weights of a model like this. The digests stay until new ones take their place.
pub fn remove(folder: &Path, config: &Config) -> anyhow::Result<()> {
    for name in names(folder)? {
        let path = folder.join(&name);
        match path.is_dir() {
            true if is_made_folder(&name) => {
                remove_files(&path, config, &HashSet::new())?;
                // Where something of the user's is in it, it stays.
                let _ = std::fs::remove_dir(&path);
            }
            false if is_made_file(&name) => remove_file(&path)?,
            _ => {}
        }
    }
    Ok(())
}

/// Gives a finished file or folder its name. In a folder that is there it takes the place of what was made before.
pub fn install(unfinished: &Path, to: &Path, config: &Config) -> anyhow::Result<()> {
    let cannot = || format!("{}: cannot be written", to.display());
    if !(unfinished.is_dir() && to.is_dir()) {
        return std::fs::rename(unfinished, to).with_context(cannot);
    }
    let new: HashSet<OsString> = names(unfinished)?.into_iter().map(OsString::from).collect();
    for name in &new {
        std::fs::rename(unfinished.join(name), to.join(name)).with_context(cannot)?;
    }
    remove_files(to, config, &new)
}

/// Removes the files of a checkpoint that is a folder, but for those that are to be kept.
fn remove_files(folder: &Path, config: &Config, kept: &HashSet<OsString>) -> anyhow::Result<()> {
    let tensors = config.tensors().into_iter();
    let tensors: HashSet<String> = tensors
        .map(|tensor| format!("{}.safetensors", tensor.name))
        .collect();
    for name in names(folder)? {
        let is_made = tensors.contains(&name) || is_of_a_folder(&name);
        if is_made && !kept.contains(&OsString::from(&name)) {
            remove_file(&folder.join(&name))?;
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> anyhow::Result<()> {
    std::fs::remove_file(path).with_context(|| format!("{}: cannot be replaced", path.display()))
}

/// The names in a folder, those that are text: none of another kind is made here.
fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder);
    let entries = entries.with_context(|| format!("{}: cannot be listed", folder.display()))?;
    let names = entries.flatten().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.into_string().ok()).collect())
}

fn is_made_folder(name: &str) -> bool {
    let mut formats = Format::ALL.into_iter();
    formats.any(|format| name == format.file_name() || name == hugging_face::name(format))
}

fn is_made_file(name: &str) -> bool {
    let mut formats = Format::ALL.into_iter();
    [configuration::FILE, REFERENCE].contains(&name)
        || formats.any(|format| name == format.file_name())
}

/// `model.safetensors`, `model-00001-of-00004.safetensors`, their index, the same of PyTorch's, and `config.json`.
fn is_of_a_folder(name: &str) -> bool {
    const KINDS: [(&str, &str); 2] = [("model", ".safetensors"), ("pytorch_model", ".bin")];
    let is_checkpoint = |(start, end): (&str, &str)| {
        let name = name.strip_suffix(".index.json").unwrap_or(name);
        let middle = name
            .strip_prefix(start)
            .and_then(|name| name.strip_suffix(end));
        middle.is_some_and(|middle| middle.is_empty() || is_part(middle))
    };
    name == configuration::FILE || KINDS.into_iter().any(is_checkpoint)
}

/// `-00001-of-00004`.
fn is_part(middle: &str) -> bool {
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = middle
        .strip_prefix('-')
        .and_then(|rest| rest.split_once("-of-"));
    numbers.is_some_and(|(number, count)| is_number(number) && is_number(count))
}

#[cfg(test)]
mod tests {
    use gpt2::Size;

    use super::*;

    fn config() -> Config {
        "v9-c8-e4-l1-h2".parse::<Size>().unwrap().config()
    }

    fn write(folder: &Path, names: &[&str], text: &str) {
        for name in names {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn what_was_made_of_other_weights_is_removed_and_what_a_user_put_there_stays() {
        let root = tempfile::tempdir().unwrap();
        let made = [
            "model.pth",
            "config.json",
            "reference.safetensors",
            "sharded/model-00001-of-00002.safetensors",
            "sharded/model.safetensors.index.json",
            "per-tensor/tok_emb.weight.safetensors",
            "hugging-face/model.safetensors",
            "hugging-face-pth/pytorch_model.bin",
        ];
        let mine = [
            "notes.txt",
            "trained.safetensors",
            "hugging-face/tokenizer.json",
            "hugging-face/trained.safetensors",
            "sharded/model-of-mine.safetensors",
            "mine/model.safetensors",
        ];
        write(root.path(), &made, "made");
        write(root.path(), &mine, "mine");
        remove(root.path(), &config()).unwrap();
        for name in made {
            assert!(!root.path().join(name).exists(), "{name}");
        }
        for name in mine {
            assert!(root.path().join(name).exists(), "{name}");
        }
        assert!(!root.path().join("per-tensor").exists());
    }

    #[test]
    fn a_folder_that_is_made_anew_keeps_what_a_user_put_there() {
        let root = tempfile::tempdir().unwrap();
        let (new, to) = (root.path().join("new"), root.path().join("hugging-face"));
        let old = ["model-00002-of-00002.safetensors", "config.json"];
        write(&to, &old, "old");
        write(&to, &["tokenizer.json"], "mine");
        write(&new, &["model.safetensors", "config.json"], "new");
        install(&new, &to, &config()).unwrap();
        let read = |name: &str| std::fs::read_to_string(to.join(name)).ok();
        assert_eq!(read("model.safetensors").as_deref(), Some("new"));
        assert_eq!(read("config.json").as_deref(), Some("new"));
        assert_eq!(read("tokenizer.json").as_deref(), Some("mine"));
        assert_eq!(read("model-00002-of-00002.safetensors"), None);
    }
}

//! The layouts that are known here, and the search for the one that a checkpoint is in.

use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, Unreadable, quoted};
use serde::{Deserialize, Serialize};

use super::description::{LAYER, Layout, Source, layer_of};
use super::error::Error;
use super::find::Match;
use super::named::Named;
use super::wrappers::unwrapped;

const BUILT_IN: [&str; 5] = [
    include_str!("book.toml"),
    include_str!("book-fast.toml"),
    include_str!("hugging-face.toml"),
    include_str!("nanogpt.toml"),
    include_str!("burn.toml"),
];

/// How a checkpoint is read, where it is not in a usual way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// The layout file that says what its tensors are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<PathBuf>,
    /// The path of keys to the state dict in a file of PyTorch's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The layouts that a checkpoint may be in.
#[derive(Debug, Clone)]
pub struct Layouts {
    known: Vec<Layout>,
    /// The path of keys to the state dict, where it is under none of the usual ones.
    key: Option<String>,
}

impl Layouts {
    /// The book's, Hugging Face's, nanoGPT's and Burn's own.
    pub fn built_in() -> Layouts {
        let parse =
            |text| toml::from_str(text).expect("built-in layouts are valid: a test parses them");
        Layouts {
            known: BUILT_IN.map(parse).to_vec(),
            key: None,
        }
    }

    /// Those that a person gave; the built-in ones where none is given.
    ///
    /// # Errors
    ///
    /// If the layout file cannot be read, or is no layout.
    pub fn of(reading: &Reading) -> Result<Layouts, Error> {
        let layouts = match &reading.layout {
            Some(path) => Layouts::read(path)?,
            None => Layouts::built_in(),
        };
        Ok(Layouts {
            key: reading.key.clone(),
            ..layouts
        })
    }

    /// What the layout of this name calls a tensor of the model, where it keeps it whole.
    pub fn name_in(&self, layout: &str, tensor: &str) -> Option<String> {
        let layout = self.named(layout)?;
        layout.tensors.iter().find_map(|(own, sources)| {
            let Source::Whole(written) = sources.all().first()? else {
                return None;
            };
            match layer_of(own, tensor) {
                Some(layer) => Some(written.replace(LAYER, &layer.to_string())),
                None => (own == tensor).then(|| written.clone()),
            }
        })
    }

    /// One layout, of a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is no layout.
    pub fn read(path: &Path) -> Result<Layouts, Error> {
        Ok(Layouts {
            known: vec![Layout::read(path)?],
            key: None,
        })
    }

    /// Opens a checkpoint, and finds the layout in which most of it is the model's.
    ///
    /// # Errors
    ///
    /// If the checkpoint is missing or invalid, in none of the layouts, or a part of one that is in several files.
    pub fn open(&self, path: &Path) -> Result<Named, Error> {
        let opened = match &self.key {
            Some(key) => Checkpoint::open_at(path, key)?,
            None => Checkpoint::open(path)?,
        };
        if let Some(shard) = opened.shard() {
            return Err(Error::Shard {
                path: path.to_owned(),
                shard: shard.clone(),
            });
        }
        let (checkpoint, wrapped) = unwrapped(opened)?;
        let mut best: Option<Match> = None;
        let prefixed = self.known.iter().flat_map(|layout| {
            let prefixes = layout.prefixes(&checkpoint).into_iter();
            prefixes.map(move |prefix| (layout, prefix))
        });
        for (layout, prefix) in prefixed {
            let found = layout.find(&checkpoint, &prefix);
            let is_better = best.as_ref().is_none_or(|best| found.rank() > best.rank());
            if is_better {
                let is_all = found.is_all_of(&checkpoint);
                best = Some(found);
                if is_all {
                    break;
                }
            }
        }
        let found = best.filter(|best| best.tensors.len() > 1);
        let found = found.ok_or_else(|| self.unknown(&checkpoint))?;
        // A second model may lie in another layout.
        let layouts = self
            .known
            .iter()
            .filter(|layout| layout.name != found.layout);
        let elsewhere = layouts.flat_map(Layout::known).collect();
        found.apply(checkpoint, &wrapped, elsewhere)
    }

    fn unknown(&self, checkpoint: &Checkpoint) -> Error {
        let layouts: Vec<&str> = self.known.iter().map(|layout| &*layout.name).collect();
        let unknown = |reason: String| Error::Unknown {
            path: checkpoint.path().to_owned(),
            reason,
        };
        let names = checkpoint.tensors().iter().take(3);
        let names: Vec<String> = names.map(|tensor| quoted(&tensor.name)).collect();
        let other = checkpoint.others().first();
        let others = checkpoint.others().iter();
        // What is the model's, and cannot be read, tells more than what can be.
        let mut of_model = others.filter(|other| {
            let mut layouts = self.known.iter();
            other.reason != Unreadable::NoTensor && layouts.any(|layout| layout.knows(&other.name))
        });
        if let Some(other) = of_model.next() {
            return unknown(format!("its {} {}", quoted(&other.name), other.reason));
        }
        unknown(match (names.is_empty(), other) {
            (true, None) => "holds no tensors".to_owned(),
            (true, Some(other)) => {
                format!("holds no weights: {} {}", quoted(&other.name), other.reason)
            }
            (false, _) => format!(
                "its {} tensors ({}, …) are named as in no layout of GPT-2 that is known here ({}): describe yours in \
                 a layout file (--layout)",
                checkpoint.tensors().len(),
                names.join(", "),
                layouts.join(", ")
            ),
        })
    }

    /// The one of this name.
    pub(super) fn named(&self, name: &str) -> Option<&Layout> {
        self.known.iter().find(|known| known.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Size;

    #[test]
    fn built_in_layouts_say_of_every_tensor_of_the_model_where_it_lies() {
        let size: Size = "v257-c64-e48-l1-h4".parse().unwrap();
        for layout in &Layouts::built_in().known {
            let named: Vec<String> = layout
                .tensors
                .keys()
                .map(|name| name.replace(LAYER, "0"))
                .collect();
            for spec in size.config().tensors() {
                assert!(named.contains(&spec.name), "{}: {}", layout.name, spec.name);
            }
            assert_eq!(
                named.len(),
                size.config().tensors().len(),
                "{}",
                layout.name
            );
        }
    }

    #[test]
    fn the_masks_in_the_books_state_dict_are_told_and_left_out() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.pth");
        let named = Layouts::built_in().open(Path::new(fixture)).unwrap();
        assert_eq!(
            named.ignored,
            ["trf_blocks.0.att.mask", "trf_blocks.1.att.mask"]
        );
        let size: Size = "v257-c64-e48-l2-h4".parse().unwrap();
        assert_eq!(
            named.checkpoint.tensors().len(),
            size.config().tensors().len()
        );
        assert!(named.is_own() && named.unexpected.is_empty());
    }

    /// A safetensors file of tensors of two elements, with these names and dtypes.
    fn file(folder: &Path, tensors: &[(&str, &str)]) -> PathBuf {
        let path = folder.join("model.safetensors");
        let mut end = 0;
        let entries = tensors.iter().map(|(name, dtype)| {
            let start = end;
            end += if *dtype == "F64" { 16 } else { 8 };
            format!(r#""{name}":{{"dtype":"{dtype}","shape":[2],"data_offsets":[{start},{end}]}}"#)
        });
        let entries: Vec<String> = entries.collect();
        let header = format!("{{{}}}", entries.join(","));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + end, 0);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn a_table_that_is_there_and_cannot_be_read_is_named_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let alone = [("wte.weight", "F64"), ("wpe.weight", "F32")];
        let opened = Layouts::built_in().open(&file(folder.path(), &alone));
        let error = opened.unwrap_err().to_string();
        assert!(
            error.contains("`wte.weight` is F64") && !error.contains("wpe"),
            "{error}"
        );
        let wrapped = [
            ("module.wte.weight", "F64"),
            ("module.wpe.weight", "F32"),
            ("module.ln_f.weight", "F32"),
        ];
        let opened = Layouts::built_in().open(&file(folder.path(), &wrapped));
        assert_eq!(
            opened.unwrap().sources["tok_emb.weight"],
            "module.wte.weight"
        );
    }
}

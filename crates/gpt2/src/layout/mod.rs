//! What others call the model's tensors, and how they keep them.
//!
//! A layout is a TOML file; the built-in ones lie beside this source. It says of each tensor of the model which tensor of the
//! file it is, or which part of one:
//!
//! ```toml
//! name = "mine"
//! variant = "gelu-tied"                 # what the model computes otherwise than GPT-2, by the words of free-form sizes
//! ignored = ["h.{layer}.attn.bias"]     # what is no weight
//!
//! [tensors]
//! "tok_emb.weight" = "wte.weight"
//! "trf_blocks.{layer}.att.W_query.weight" = { from = "h.{layer}.attn.c_attn.weight", transposed = true, part = 1, of = 3 }
//! "out_head.weight" = ["lm_head.weight", "wte.weight"]          # the first that is there
//! ```
//!
//! `transposed` is for matrices that are kept `[inputs, outputs]`; `part` counts from 1, along the outputs. Nothing is moved
//! for any of it: a transposed matrix is a byte range with other strides ([`TensorRange::transposed`]). What stands before
//! all names, `transformer.` or a wrapper's `module.`, is found out and need not be told.

mod error;
mod find;
mod unexpected;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, Other, TensorRange, Unreadable, quoted};
use serde::{Deserialize, Serialize};

use crate::Variant;
pub use error::Error;
use find::{Match, layer_of, unwrapped};
pub use unexpected::Essential;
use write::Place;
pub use write::{Blocks, FileTensor, write_tensors};

const BUILT_IN: [&str; 5] = [
    include_str!("book.toml"),
    include_str!("book-fast.toml"),
    include_str!("hugging-face.toml"),
    include_str!("nanogpt.toml"),
    include_str!("burn.toml"),
];
/// A layout file is written by hand.
pub const MAX_LAYOUT_BYTES: u64 = 1 << 20;
/// Stands for a layer's number in names.
const LAYER: &str = "{layer}";

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

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    name: String,
    /// In what models in this layout differ from GPT-2, where nothing else tells: [`Variant`] in words.
    #[serde(default)]
    variant: String,
    #[serde(default)]
    ignored: Vec<String>,
    /// By the model's own names, which are the book's.
    tensors: BTreeMap<String, Sources>,
}

const SOURCE: &str = "the name of a tensor, { from = \"name\", transposed = true, part = 1, of = 3 }, or a list of such";

#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "a source must be a name, a table with `from`, or a list of those"
)]
enum Sources {
    One(Source),
    FirstOf(Vec<Source>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Source {
    Whole(String),
    Part(Part),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    from: String,
    #[serde(default)]
    transposed: bool,
    #[serde(default = "one")]
    part: usize,
    #[serde(default = "one")]
    of: usize,
}

fn one() -> usize {
    1
}

/// A checkpoint whose tensors bear the model's own names.
#[derive(Debug, Clone)]
pub struct Named {
    /// What was found of the model, and what is unexpected, under its own name.
    pub checkpoint: Checkpoint,
    /// The layout it is in.
    pub layout: String,
    /// In what models in this layout differ from GPT-2, where nothing else tells.
    pub variant: Variant,
    /// What the file calls each tensor of the model that is there or should be.
    pub sources: BTreeMap<String, String>,
    /// What the file calls tensors of layers, by the model's own names.
    patterns: Vec<(String, String)>,
    /// What its layout calls the model's tensors, by the model's own names; both with a place for a layer's number.
    known: Vec<(String, String)>,
    /// The same of the other layouts.
    elsewhere: Vec<(String, String)>,
    /// Where each tensor of the model that is there lies, and how.
    places: BTreeMap<String, Place>,
    /// Entries that are no weights, and known as such.
    pub ignored: Vec<String>,
    /// Those of them that can be read: masks, in every layout that is built in.
    pub masks: Vec<TensorRange>,
    /// Those of them whose elements are of a type that weights cannot have: masks of booleans, mostly.
    pub odd_masks: Vec<Other>,
    /// Tensors that the layout does not know: names and shapes.
    pub unexpected: Vec<(String, Vec<usize>)>,
    /// Tensors that the layout does not know, and that cannot be read.
    pub unreadable: Vec<Other>,
}

/// The tables of a GPT-2: the tokens' embeddings, and the output head's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// One for both, under one name or two.
    One,
    /// Two, equal or not.
    Two,
    /// The tokens' alone: the head is missing, if the model's is not the same table.
    NoHead,
}

impl Named {
    /// Which tables the file keeps for the tokens and the output head.
    pub fn tables(&self) -> Tables {
        let find = |name: &str| self.checkpoint.find(name);
        match (find("tok_emb.weight"), find("out_head.weight")) {
            // Two views of one storage may be of other elements of it.
            (Some(tokens), Some(head))
                if (&tokens.file, tokens.offset) == (&head.file, head.offset)
                    && (&tokens.shape, &tokens.strides, tokens.dtype)
                        == (&head.shape, &head.strides, head.dtype) =>
            {
                Tables::One
            }
            (Some(_), None) => Tables::NoHead,
            _ => Tables::Two,
        }
    }

    /// What is there under the name of a tensor of the model, and is none that can be loaded.
    pub fn other(&self, tensor: &str) -> Option<&Other> {
        let written = self.name_in_file(tensor);
        let mut others = self.checkpoint.others().iter();
        others.find(|other| other.name == written)
    }

    /// What the file calls a tensor of the model, or would call it.
    pub fn name_in_file(&self, tensor: &str) -> String {
        if let Some(name) = self.sources.get(tensor) {
            return name.clone();
        }
        let mut patterns = self.patterns.iter();
        let found = patterns.find_map(|(own, written)| {
            let layer = layer_of(own, tensor)?;
            Some(written.replace(LAYER, &layer.to_string()))
        });
        found.unwrap_or_else(|| tensor.to_owned())
    }

    /// Whether every tensor lies in the file under the model's own name, and as a parameter holds it.
    pub fn is_own(&self) -> bool {
        let tensors = self.checkpoint.tensors().iter();
        let mut known = tensors.filter(|tensor| self.sources.contains_key(&tensor.name));
        known.all(|tensor| self.sources[&tensor.name] == tensor.name && tensor.is_contiguous())
    }
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
        let text = checkpoint::read_text(path, MAX_LAYOUT_BYTES)?;
        let wrong = |reason: String| Error::NoLayout {
            path: path.to_owned(),
            reason,
        };
        let layout: Layout = toml::from_str(&text).map_err(|error| {
            wrong(format!(
                "is no layout: {error}\nwhat a tensor is made of: {SOURCE}"
            ))
        })?;
        layout.variant.parse::<Variant>().map_err(wrong)?;
        let parts = layout.tensors.values().flat_map(Sources::all);
        for source in parts {
            if let Source::Part(Part { from, part, of, .. }) = source
                && !(1..=*of).contains(part)
            {
                return Err(wrong(format!("`{from}` has no part {part} of {of}")));
            }
        }
        Ok(Layouts {
            known: vec![layout],
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
        for layout in &self.known {
            for prefix in layout.prefixes(&checkpoint) {
                let found = layout.find(&checkpoint, &prefix);
                let is_better = best.as_ref().is_none_or(|best| found.rank() > best.rank());
                if is_better {
                    best = Some(found);
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
}

impl Sources {
    fn all(&self) -> &[Source] {
        match self {
            Sources::One(source) => std::slice::from_ref(source),
            Sources::FirstOf(sources) => sources,
        }
    }
}

impl Source {
    fn from(&self) -> &str {
        match self {
            Source::Whole(from) | Source::Part(Part { from, .. }) => from,
        }
    }

    /// That it is of the file's tensor of this name.
    fn place(&self, name: String) -> Place {
        let (transposed, part, of) = match self {
            Source::Whole(_) => (false, 1, 1),
            Source::Part(part) => (part.transposed, part.part, part.of),
        };
        Place {
            name,
            transposed,
            part,
            of,
        }
    }

    /// What this makes of the file's tensor; `None` where its shape does not allow that.
    fn of(&self, tensor: TensorRange) -> Option<TensorRange> {
        let Source::Part(part) = self else {
            return Some(tensor);
        };
        let tensor = match (part.transposed, tensor.shape.len()) {
            (false, _) => tensor,
            (true, 2) => tensor.transposed(),
            (true, _) => return None,
        };
        let rows = *tensor.shape.first()?;
        if part.of == 1 {
            return Some(tensor);
        }
        let height = rows.is_multiple_of(part.of).then_some(rows / part.of)?;
        Some(tensor.narrowed((part.part - 1) * height..part.part * height))
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
    fn a_layout_that_is_none_is_told_with_what_is_expected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        for (text, expected) in [
            (
                "name = 'a'\n[tensors]\n'tok_emb.weight' = 3",
                "a source must be a name",
            ),
            ("name = 'a'\ntensor = {}", "unknown field `tensor`"),
            (
                "name = 'a'\n[tensors]\na = { from = 'b', part = 4, of = 3 }",
                "no part 4 of 3",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Layouts::read(&path).unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.contains("mine.toml"),
                "{error}"
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

    #[test]
    fn two_views_of_one_storage_are_two_tables_unless_they_are_of_the_same_elements() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny.pth");
        let named = Layouts::built_in().open(Path::new(fixture)).unwrap();
        let tokens = named.checkpoint.find("tok_emb.weight").unwrap().clone();
        let head = TensorRange {
            name: "out_head.weight".to_owned(),
            ..tokens.clone()
        };
        let stepped = TensorRange {
            strides: vec![2 * tokens.strides[0], 1],
            ..head.clone()
        };
        for (head, expected) in [(head, Tables::One), (stepped, Tables::Two)] {
            let tensors = vec![tokens.clone(), head];
            let mut named = named.clone();
            named.checkpoint = named.checkpoint.with_tensors(tensors).unwrap();
            assert_eq!(named.tables(), expected);
        }
    }
}

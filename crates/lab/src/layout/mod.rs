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

mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, TensorRange, Unreadable};
use gpt2::Variant;
use serde::{Deserialize, Serialize};

use crate::Error;
use write::Place;
pub use write::{Blocks, FileTensor, write_tensors};

const BUILT_IN: [&str; 5] = [
    include_str!("book.toml"),
    include_str!("book-fast.toml"),
    include_str!("hugging-face.toml"),
    include_str!("nanogpt.toml"),
    include_str!("burn.toml"),
];
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
    /// In what models in this layout differ from GPT-2, where nothing else tells: [`gpt2::Variant`] in words.
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
    /// Where each tensor of the model that is there lies, and how.
    places: BTreeMap<String, Place>,
    /// Entries that are no weights, and known as such.
    pub ignored: Vec<String>,
    /// Those of them that can be read: masks, in every layout that is built in.
    pub masks: Vec<TensorRange>,
    /// Tensors that the layout does not know: names and shapes.
    pub unexpected: Vec<(String, Vec<usize>)>,
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
            (Some(tokens), Some(head))
                if (&tokens.file, tokens.offset) == (&head.file, head.offset) =>
            {
                Tables::One
            }
            (Some(_), None) => Tables::NoHead,
            _ => Tables::Two,
        }
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
        let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, &error))?;
        let wrong = |reason: String| Error::Setup(format!("{}: {reason}", path.display()));
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
            return Err(Error::Setup(format!("{}: {shard}", path.display())));
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
        found
            .ok_or_else(|| self.unknown(&checkpoint))?
            .apply(checkpoint, &wrapped)
    }

    fn unknown(&self, checkpoint: &Checkpoint) -> Error {
        let layouts: Vec<&str> = self.known.iter().map(|layout| &*layout.name).collect();
        let names = checkpoint.tensors().iter().take(3);
        let names: Vec<String> = names.map(|tensor| format!("`{}`", tensor.name)).collect();
        let other = checkpoint.others().first();
        let reason = match (names.is_empty(), other) {
            (true, None) => "holds no tensors".to_owned(),
            (true, Some(other)) => {
                format!("holds no weights: `{}` {}", other.name, other.reason)
            }
            (false, _) => format!(
                "its {} tensors ({}, …) are named as in no layout of GPT-2 that is known here ({}): describe yours in \
                 a layout file (--layout)",
                checkpoint.tensors().len(),
                names.join(", "),
                layouts.join(", ")
            ),
        };
        Error::Setup(format!("{}: {reason}", checkpoint.path().display()))
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

/// What a layout finds in a checkpoint.
struct Match {
    layout: String,
    variant: Variant,
    tensors: Vec<TensorRange>,
    sources: BTreeMap<String, String>,
    patterns: Vec<(String, String)>,
    places: BTreeMap<String, Place>,
    ignored: Vec<String>,
    masks: Vec<TensorRange>,
    unexpected: Vec<TensorRange>,
}

impl Match {
    /// More of the model is better, of it what has a shape that it can have, and less that is not of it.
    fn rank(&self) -> (usize, usize, isize) {
        (
            self.fitting(),
            self.tensors.len(),
            -(self.unexpected.len() as isize),
        )
    }

    /// How many tensors have shapes that go with the width of the token table: two layouts may have the same names, and
    /// matrices the other way round.
    fn fitting(&self) -> usize {
        let find = |name: &str| self.tensors.iter().find(|tensor| tensor.name == name);
        let width = match find("tok_emb.weight").map(|table| &table.shape[..]) {
            Some(&[_, width]) => width,
            _ => return 0,
        };
        let fits = self.tensors.iter().filter(|tensor| {
            let (name, shape) = (&tensor.name, &tensor.shape[..]);
            match shape {
                [rows, columns] if name.contains(".att.") => (*rows, *columns) == (width, width),
                [rows, _] if name.ends_with(".ff.layers.2.weight") => *rows == width,
                [_, columns] => *columns == width,
                [_] => true,
                _ => false,
            }
        });
        fits.count()
    }

    fn apply(
        self,
        checkpoint: Checkpoint,
        wrapped: &HashMap<String, String>,
    ) -> Result<Named, Error> {
        // People know them by the names that stand in the file.
        let written = |name: &String| wrapped.get(name).unwrap_or(name).clone();
        let unexpected = self.unexpected.iter();
        let unexpected = unexpected.map(|tensor| (written(&tensor.name), tensor.shape.clone()));
        let unexpected = unexpected.collect();
        let sources = self.sources.into_iter();
        let sources = sources.map(|(own, name)| (own, written(&name))).collect();
        let places = self.places.into_iter();
        let places = places.map(|(own, mut place)| {
            place.name = written(&place.name);
            (own, place)
        });
        let places = places.collect();
        let mut tensors = self.tensors;
        // In the order of the file, as loaders that follow it expect.
        let order: BTreeMap<_, _> = checkpoint
            .tensors()
            .iter()
            .enumerate()
            .map(|(place, tensor)| ((tensor.file.clone(), tensor.offset), place))
            .collect();
        tensors.sort_by_key(|tensor| {
            let at = order
                .range(..=(tensor.file.clone(), tensor.offset))
                .next_back();
            (at.map(|(_, place)| *place), tensor.offset)
        });
        tensors.extend(self.unexpected);
        Ok(Named {
            checkpoint: checkpoint.with_tensors(tensors)?,
            layout: self.layout,
            variant: self.variant,
            sources,
            patterns: self.patterns,
            places,
            ignored: self.ignored,
            masks: self.masks,
            unexpected,
        })
    }
}

impl Layout {
    /// What may stand before the names: what does before those of the tensors that are outside of layers.
    fn prefixes(&self, checkpoint: &Checkpoint) -> BTreeSet<String> {
        let sources = self.tensors.values().flat_map(Sources::all);
        let anchors: Vec<&str> = sources
            .map(Source::from)
            .filter(|name| !name.contains(LAYER))
            .collect();
        let names = checkpoint.tensors().iter().map(|tensor| &*tensor.name);
        let prefixes = names.flat_map(|name| {
            let anchors = anchors.iter();
            let before = anchors.filter_map(move |anchor| name.strip_suffix(anchor));
            before.filter(|prefix| prefix.ends_with('.'))
        });
        let plain = std::iter::once("");
        plain.chain(prefixes).map(str::to_owned).collect()
    }

    fn find(&self, checkpoint: &Checkpoint, prefix: &str) -> Match {
        // A head stands outside of the module that the prefix is of.
        let prefixes: Vec<&str> = std::iter::successors(Some(prefix), |prefix| {
            let outer = prefix.strip_suffix('.')?;
            Some(outer.rfind('.').map_or("", |dot| &outer[..=dot]))
        })
        .collect();
        let written = |name: &str| {
            let mut names = prefixes.iter().map(|prefix| format!("{prefix}{name}"));
            names.find(|name| checkpoint.find(name).is_some())
        };
        let others = checkpoint.others().iter().map(|other| &*other.name);
        let tensors = checkpoint.tensors().iter().map(|tensor| &*tensor.name);
        let names: Vec<&str> = tensors.chain(others).collect();
        let bare = |name: &str| -> String {
            let mut bare = prefixes
                .iter()
                .filter_map(|prefix| name.strip_prefix(prefix));
            bare.next().unwrap_or(name).to_owned()
        };

        let sources = || self.tensors.values().flat_map(Sources::all);
        let patterns: HashSet<&str> = sources().map(Source::from).collect();
        let layers = names.iter().flat_map(|name| {
            let name = bare(name);
            let numbers = patterns.iter().map(move |pattern| layer_of(pattern, &name));
            numbers.flatten().collect::<Vec<_>>()
        });
        // A layer has a tensor of its own: more layers than tensors is a name that lies.
        let layers = layers.filter(|layer| *layer < names.len()).max();
        let layers = layers.map_or(0, |last| last + 1);

        let mut found = Match {
            layout: self.name.clone(),
            variant: self
                .variant
                .parse()
                .expect("layouts are checked when they are read"),
            tensors: Vec::new(),
            sources: BTreeMap::new(),
            patterns: Vec::new(),
            places: BTreeMap::new(),
            ignored: Vec::new(),
            masks: Vec::new(),
            unexpected: Vec::new(),
        };
        // What is there and cannot be read: nothing else stands in for it.
        let others = checkpoint.others().iter();
        let unreadable: HashSet<&str> = others
            .filter(|other| !matches!(other.reason, Unreadable::Missing { .. }))
            .map(|other| &*other.name)
            .collect();
        let mut used = HashSet::new();
        for (name, sources) in &self.tensors {
            if let Some(first) = sources.all().first().filter(|_| name.contains(LAYER)) {
                let written = format!("{prefix}{}", first.from());
                found.patterns.push((name.clone(), written));
            }
            let numbers = match name.contains(LAYER) {
                true => 0..layers,
                false => 0..1,
            };
            for layer in numbers {
                let number = layer.to_string();
                let own = name.replace(LAYER, &number);
                let (mut wanted, mut place, mut tensor) = (None, None, None);
                for source in sources.all() {
                    let from = source.from().replace(LAYER, &number);
                    let mut names = prefixes.iter().map(|prefix| format!("{prefix}{from}"));
                    if let Some(name) = names.find(|name| unreadable.contains(&**name)) {
                        wanted = Some(name);
                        break;
                    }
                    wanted.get_or_insert_with(|| format!("{prefix}{from}"));
                    let found = written(&from)
                        .and_then(|name| Some((checkpoint.find(&name)?.clone(), name)))
                        .and_then(|(found, name)| Some((source.of(found)?, name)));
                    if let Some((found, name)) = found {
                        wanted = Some(name.clone());
                        place = Some(source.place(name.clone()));
                        used.insert(name);
                        tensor = Some(found);
                        break;
                    }
                }
                found
                    .sources
                    .insert(own.clone(), wanted.unwrap_or_default());
                if let Some(place) = place {
                    found.places.insert(own.clone(), place);
                }
                if let Some(mut tensor) = tensor {
                    tensor.name = own;
                    found.tensors.push(tensor);
                }
            }
        }
        let is_ignored = |name: &str| {
            let name = bare(name);
            let mut patterns = self.ignored.iter();
            patterns.any(|pattern| *pattern == name || layer_of(pattern, &name).is_some())
        };
        for tensor in checkpoint.tensors() {
            match (used.contains(&tensor.name), is_ignored(&tensor.name)) {
                (true, _) => {}
                (false, true) => {
                    found.ignored.push(tensor.name.clone());
                    found.masks.push(tensor.clone());
                }
                (false, false) => found.unexpected.push(tensor.clone()),
            }
        }
        // What is neither ignored nor a tensor is named where it is asked for.
        let others = checkpoint.others().iter();
        let ignored = others.filter(|other| is_ignored(&other.name));
        found
            .ignored
            .extend(ignored.map(|other| other.name.clone()));
        found
    }
}

/// What wrappers of PyTorch put into the names of what they wrap: compilation, activation checkpointing, sharded and
/// distributed training.
const WRAPPERS: [&str; 5] = [
    "_orig_mod",
    "_checkpoint_wrapped_module",
    "_fsdp_wrapped_module",
    "_forward_module",
    "module",
];

/// The checkpoint without wrappers in its names, and what stands in the file for each name that had any. Where two names would
/// be one, all stay as they are.
fn unwrapped(checkpoint: Checkpoint) -> Result<(Checkpoint, HashMap<String, String>), Error> {
    let bare = |name: &str| {
        let parts = name.split('.').filter(|part| !WRAPPERS.contains(part));
        parts.collect::<Vec<_>>().join(".")
    };
    let mut wrapped = HashMap::new();
    let mut tensors = checkpoint.tensors().to_vec();
    for tensor in &mut tensors {
        let name = bare(&tensor.name);
        if name != tensor.name {
            wrapped.insert(name.clone(), std::mem::replace(&mut tensor.name, name));
        }
    }
    let names: HashSet<&str> = tensors.iter().map(|tensor| &*tensor.name).collect();
    if wrapped.is_empty() || names.len() < tensors.len() {
        return Ok((checkpoint, HashMap::new()));
    }
    Ok((checkpoint.with_tensors(tensors)?, wrapped))
}

/// The number that stands where `pattern` has a layer's.
fn layer_of(pattern: &str, name: &str) -> Option<usize> {
    let (before, behind) = pattern.split_once(LAYER)?;
    let number = name.strip_prefix(before)?.strip_suffix(behind)?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use gpt2::Size;

    use super::*;

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
        let fixture = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../gpt2/tests/fixtures/tiny.pth"
        );
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

    #[test]
    fn a_layers_number_is_read_and_nothing_else_is_one() {
        assert_eq!(
            layer_of("h.{layer}.ln_1.weight", "h.12.ln_1.weight"),
            Some(12)
        );
        for name in [
            "h..ln_1.weight",
            "h.+1.ln_1.weight",
            "h.99999999999999999999.ln_1.weight",
            "h.1.ln_2.weight",
        ] {
            assert_eq!(layer_of("h.{layer}.ln_1.weight", name), None, "{name}");
        }
    }
}

//! What a layout file says.

use std::collections::BTreeMap;
use std::path::Path;

use checkpoint::TensorRange;
use serde::Deserialize;

use super::error::Error;
use crate::Variant;

/// A layout file is written by hand.
pub const MAX_LAYOUT_BYTES: u64 = 1 << 20;
/// Stands for a layer's number in names.
pub const LAYER: &str = "{layer}";

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    pub name: String,
    /// In what models in this layout differ from GPT-2, where nothing else tells: [`Variant`] in words.
    #[serde(default)]
    pub variant: String,
    #[serde(default)]
    pub ignored: Vec<String>,
    /// By the model's own names, which are the book's.
    pub tensors: BTreeMap<String, Sources>,
}

const SOURCE: &str = "the name of a tensor, { from = \"name\", transposed = true, part = 1, of = 3 }, or a list of such";

#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "a source must be a name, a table with `from`, or a list of those"
)]
pub enum Sources {
    One(Source),
    FirstOf(Vec<Source>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Source {
    Whole(String),
    Part(Part),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub from: String,
    #[serde(default)]
    pub transposed: bool,
    #[serde(default = "one")]
    pub part: usize,
    #[serde(default = "one")]
    pub of: usize,
}

fn one() -> usize {
    1
}

/// Where a tensor of the model lies in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file's tensor.
    pub name: String,
    /// Whether that one has rows and columns exchanged.
    pub transposed: bool,
    /// Which part of it this is, from 1 on.
    pub part: usize,
    /// How many parts it has.
    pub of: usize,
}

impl Layout {
    /// One of a file.
    pub fn read(path: &Path) -> Result<Layout, Error> {
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
        Ok(layout)
    }

    /// The model's own names of tensors, each with every name that it may have in a file.
    pub fn known(&self) -> Vec<(String, String)> {
        let all = self.tensors.iter().flat_map(|(own, sources)| {
            let written = sources.all().iter().map(Source::from);
            written.map(|written| (own.clone(), written.to_owned()))
        });
        all.collect()
    }

    /// Where it has a tensor of the model, by the first of its sources, without what stands before all names.
    pub fn first_place(&self, tensor: &str) -> Option<Place> {
        self.tensors.iter().find_map(|(own, sources)| {
            let first = sources.all().first()?;
            match layer_of(own, tensor) {
                Some(layer) => Some(first.place(first.from().replace(LAYER, &layer.to_string()))),
                None => (own == tensor).then(|| first.place(first.from().to_owned())),
            }
        })
    }
}

impl Sources {
    pub fn all(&self) -> &[Source] {
        match self {
            Sources::One(source) => std::slice::from_ref(source),
            Sources::FirstOf(sources) => sources,
        }
    }
}

impl Source {
    pub fn from(&self) -> &str {
        match self {
            Source::Whole(from) | Source::Part(Part { from, .. }) => from,
        }
    }

    /// That it is of the file's tensor of this name.
    pub fn place(&self, name: String) -> Place {
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
    pub fn of(&self, tensor: TensorRange) -> Option<TensorRange> {
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

/// The number that stands where `pattern` has a layer's.
pub fn layer_of(pattern: &str, name: &str) -> Option<usize> {
    number_in(pattern.split_once(LAYER)?, name)
}

/// The number that stands between these.
pub fn number_in((before, behind): (&str, &str), name: &str) -> Option<usize> {
    let number = name.strip_prefix(before)?.strip_suffix(behind)?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let error = Layout::read(&path).unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.contains("mine.toml"),
                "{error}"
            );
        }
    }
}

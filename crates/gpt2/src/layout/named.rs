//! A checkpoint whose tensors bear the model's own names.

use std::collections::BTreeMap;

use checkpoint::{Checkpoint, Other, TensorRange};

use super::description::{LAYER, Place, layer_of};
use crate::Variant;

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
    pub(super) patterns: Vec<(String, String)>,
    /// What its layout calls the model's tensors, by the model's own names; both with a place for a layer's number.
    pub(super) known: Vec<(String, String)>,
    /// The same of the other layouts.
    pub(super) elsewhere: Vec<(String, String)>,
    /// Where each tensor of the model that is there lies, and how.
    pub(super) places: BTreeMap<String, Place>,
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Layouts;
    use super::*;

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

//! The search for a layout's tensors in a checkpoint.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use checkpoint::{Checkpoint, Other, TensorRange, Unreadable};

use super::description::{LAYER, Layout, Place, Source, Sources, layer_of, number_in};
use super::error::Error;
use super::named::Named;
use super::wrappers::without_wrappers;
use crate::Variant;

/// What a layout finds in a checkpoint.
pub(super) struct Match {
    pub(super) layout: String,
    variant: Variant,
    pub(super) tensors: Vec<TensorRange>,
    sources: BTreeMap<String, String>,
    patterns: Vec<(String, String)>,
    known: Vec<(String, String)>,
    places: BTreeMap<String, Place>,
    ignored: Vec<String>,
    masks: Vec<TensorRange>,
    odd_masks: Vec<Other>,
    unexpected: Vec<TensorRange>,
    unreadable: Vec<Other>,
}

impl Match {
    /// More of the model is better, of it what has a shape that it can have, and less that is not of it.
    pub(super) fn rank(&self) -> (usize, usize, isize) {
        (
            self.fitting(),
            self.tensors.len(),
            -(self.unexpected.len() as isize),
        )
    }

    /// Whether it is a whole model, and the checkpoint holds nothing else: then no other layout fits better.
    pub(super) fn is_all_of(&self, checkpoint: &Checkpoint) -> bool {
        let is_whole = self.tensors.len() == self.sources.len();
        let is_alone =
            self.tensors.len() >= checkpoint.tensors().len() && self.unexpected.is_empty();
        is_whole && is_alone && self.fitting() == self.tensors.len()
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

    pub(super) fn apply(
        self,
        checkpoint: Checkpoint,
        wrapped: &HashMap<String, String>,
        elsewhere: Vec<(String, String)>,
    ) -> Result<Named, Error> {
        // People know them by the names that stand in the file.
        let written = |name: &String| wrapped.get(name).unwrap_or(name).clone();
        let unexpected = self.unexpected.iter();
        let unexpected = unexpected.map(|tensor| (written(&tensor.name), tensor.shape.clone()));
        let unexpected = unexpected.collect();
        let in_file = |other: &Other| {
            let mut other = other.clone();
            other.name = written(&other.name);
            other
        };
        let unreadable = self.unreadable.iter().map(in_file).collect();
        let others = checkpoint.others().iter().map(in_file).collect();
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
        let mut order: HashMap<&Path, BTreeMap<u64, usize>> = HashMap::new();
        for (place, tensor) in checkpoint.tensors().iter().enumerate() {
            let of_file = order.entry(&tensor.file).or_default();
            of_file.insert(tensor.offset, place);
        }
        tensors.sort_by_cached_key(|tensor| {
            let of_file = order.get(&*tensor.file);
            let at = of_file.and_then(|places| places.range(..=tensor.offset).next_back());
            (at.map(|(_, place)| *place), tensor.offset)
        });
        tensors.extend(self.unexpected);
        Ok(Named {
            checkpoint: checkpoint.with_tensors(tensors)?.with_others(others),
            layout: self.layout,
            variant: self.variant,
            sources,
            patterns: self.patterns,
            known: self.known,
            elsewhere,
            places,
            ignored: self.ignored,
            masks: self.masks,
            odd_masks: self.odd_masks,
            unexpected,
            unreadable,
        })
    }
}

/// How many prefixes are looked at in a checkpoint.
const MAX_PREFIXES: usize = 16;
/// How many modules a model may lie in.
pub(super) const MAX_DEPTH: usize = 16;

fn is_prefix(text: &str) -> bool {
    text.ends_with('.') && text.matches('.').count() <= MAX_DEPTH
}

impl Layout {
    /// What may stand before the names: what does before those of the tensors that are outside of layers, where most of these
    /// are. A file has few models, and may have any number of names.
    pub(super) fn prefixes(&self, checkpoint: &Checkpoint) -> BTreeSet<String> {
        let sources = self.tensors.values().flat_map(Sources::all);
        let anchors: BTreeSet<&str> = sources
            .map(Source::from)
            .filter(|name| !name.contains(LAYER))
            .collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for tensor in checkpoint.tensors() {
            let before = anchors
                .iter()
                .filter_map(|anchor| tensor.name.strip_suffix(anchor));
            for prefix in before.filter(|prefix| is_prefix(prefix)) {
                *counts.entry(prefix).or_default() += 1;
            }
        }
        let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| Reverse(*count));
        let most = counts.into_iter().take(MAX_PREFIXES);
        let plain = std::iter::once("");
        plain
            .chain(most.map(|(prefix, _)| prefix))
            .map(str::to_owned)
            .collect()
    }

    pub(super) fn find(&self, checkpoint: &Checkpoint, prefix: &str) -> Match {
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
        let others = checkpoint.others().iter();
        let others: Vec<String> = others.map(|other| without_wrappers(&other.name)).collect();
        let tensors = checkpoint.tensors().iter().map(|tensor| &*tensor.name);
        let names: Vec<&str> = tensors.chain(others.iter().map(|name| &**name)).collect();
        fn bare_of<'n>(prefixes: &[&str], name: &'n str) -> &'n str {
            let mut bare = prefixes
                .iter()
                .filter_map(|prefix| name.strip_prefix(prefix));
            bare.next().unwrap_or(name)
        }

        let sources = || self.tensors.values().flat_map(Sources::all);
        let patterns: HashSet<&str> = sources().map(Source::from).collect();
        let patterns: Vec<(&str, &str)> = patterns
            .into_iter()
            .filter_map(|pattern| pattern.split_once(LAYER))
            .collect();
        let mut layers: Vec<usize> = Vec::new();
        for name in &names {
            let name = bare_of(&prefixes, name);
            let numbers = patterns.iter().map(|pattern| number_in(*pattern, name));
            layers.extend(numbers.flatten());
        }
        // A layer has a tensor of its own: more layers than tensors of layers is a name that lies.
        let last = layers.iter().filter(|layer| **layer < layers.len()).max();
        let layers = last.map_or(0, |last| last + 1);

        let mut found = Match {
            layout: self.name.clone(),
            variant: self
                .variant
                .parse()
                .expect("layouts are checked when they are read"),
            tensors: Vec::new(),
            sources: BTreeMap::new(),
            patterns: Vec::new(),
            known: self.known(),
            places: BTreeMap::new(),
            ignored: Vec::new(),
            masks: Vec::new(),
            odd_masks: Vec::new(),
            unexpected: Vec::new(),
            unreadable: Vec::new(),
        };
        // What is there and cannot be read: nothing else stands in for it.
        let unreadable = checkpoint.others().iter().zip(&others);
        let unreadable: HashSet<&str> = unreadable
            .filter(|(other, _)| !matches!(other.reason, Unreadable::Missing { .. }))
            .map(|(_, name)| &**name)
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
            let name = bare_of(&prefixes, name);
            let mut patterns = self.ignored.iter();
            patterns.any(|pattern| *pattern == name || layer_of(pattern, name).is_some())
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
        // What is asked for is named where it is missing. What an index lists, no file has and nobody asks for is nothing.
        let wanted: HashSet<&str> = found.sources.values().map(|name| &**name).collect();
        for (other, name) in checkpoint.others().iter().zip(&others) {
            match (wanted.contains(&**name), is_ignored(name)) {
                (true, _) => {}
                (false, true) => {
                    found.ignored.push(name.clone());
                    found.odd_masks.push(other.clone());
                }
                (false, false) if matches!(other.reason, Unreadable::Missing { .. }) => {}
                (false, false) => found.unreadable.push(other.clone()),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_lies_of_its_layer_and_thousands_of_prefixes_are_not_searched_through() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let write = |names: Vec<String>| {
            let metas = names.into_iter().map(|name| checkpoint::TensorMeta {
                name,
                dtype: checkpoint::Dtype::F32,
                shape: vec![1],
            });
            let metas: Vec<_> = metas.collect();
            let format = checkpoint::Format::Safetensors;
            checkpoint::write(&path, format, &metas, &mut |_, sink| sink(&[0; 4])).unwrap();
            Checkpoint::open(&path).unwrap()
        };
        let layout: Layout = toml::from_str(include_str!("hugging-face.toml")).unwrap();
        let mut names: Vec<String> = (0..3000).map(|at| format!("p{at}.wte.weight")).collect();
        names.extend(["wte", "wpe", "ln_f"].map(|name| format!("model.{name}.weight")));
        let prefixes = layout.prefixes(&write(names));
        assert!(prefixes.contains("model.") && prefixes.contains(""));
        assert_eq!(prefixes.len(), MAX_PREFIXES + 1);
        let mut names: Vec<String> = (0..3000).map(|at| format!("junk.{at}")).collect();
        names.extend(["wte.weight", "wpe.weight", "h.3000.ln_1.weight"].map(str::to_owned));
        let found = layout.find(&write(names), "");
        assert_eq!(found.tensors.len(), 3);
        assert!(found.sources.len() < 10, "{} names", found.sources.len());
    }
}

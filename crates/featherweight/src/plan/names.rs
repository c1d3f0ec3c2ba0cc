//! What a checkpoint's tensors are called for a module: filtered and renamed, as burn-store does it.

use std::collections::BTreeMap;

use burn_store::PathFilter;
use checkpoint::{Checkpoint, Other, TensorRange, Unreadable};
use regex::Regex;

use super::Slot;

/// How names of a checkpoint become those of a module. The words are burn-store's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub filter: Option<PathFilter>,
    pub remappings: Vec<(Regex, String)>,
    /// Numbers in names are counted anew, without gaps.
    pub is_contiguous: bool,
}

/// A tensor under the name that it has for the module.
#[derive(Debug, Clone)]
pub(crate) struct Named<'a> {
    pub name: String,
    pub tensor: &'a TensorRange,
}

/// Whether a filter of burn-store's lets a parameter through.
pub(crate) fn wants(filter: Option<&PathFilter>, slot: &Slot) -> bool {
    filter.is_none_or(|filter| filter.matches_with_container_path_str(&slot.path, &slot.containers))
}

/// What is in the file and cannot be read, under the name that it would have.
#[derive(Debug, Clone)]
pub(crate) struct NamedOther<'a> {
    pub name: String,
    pub other: &'a Other,
}

impl Names {
    /// Whether a parameter is asked for.
    pub fn wants(&self, slot: &Slot) -> bool {
        wants(self.filter.as_ref(), slot)
    }

    /// Whether a tensor for which there is no parameter would be asked for.
    pub fn wants_name(&self, name: &str) -> bool {
        let filter = self.filter.as_ref();
        filter.is_none_or(|filter| filter.matches(name))
    }

    /// The name for the module of what is called so in the file.
    pub fn rename(&self, name: &str) -> String {
        let each = self.remappings.iter();
        each.fold(name.to_owned(), |name, (pattern, to)| {
            pattern.replace_all(&name, &**to).into_owned()
        })
    }

    /// Every tensor of the checkpoint under its name for the module, and what is no tensor that can be read: it has a number, too.
    pub fn apply<'a>(&self, checkpoint: &'a Checkpoint) -> (Vec<Named<'a>>, Vec<NamedOther<'a>>) {
        let tensors: Vec<&TensorRange> = checkpoint.all().collect();
        let others = checkpoint.others().iter();
        let others = others.filter(|other| other.tensor().is_none());
        // What is no tensor at all, as a module's extra state, takes no number from a layer.
        let (without, others): (Vec<&Other>, Vec<&Other>) =
            others.partition(|other| matches!(other.reason, Unreadable::NoTensor));
        let named = tensors.iter().map(|tensor| &tensor.name);
        let named = named.chain(others.iter().map(|other| &other.name));
        let mut names: Vec<String> = named.map(|name| self.rename(name)).collect();
        if self.is_contiguous {
            let before: Vec<&str> = names.iter().map(|name| &**name).collect();
            names = contiguous(&before);
        }
        let mut names = names.into_iter();
        let named = tensors.into_iter().zip(names.by_ref());
        let named = named.map(|(tensor, name)| Named { name, tensor }).collect();
        let others = others.into_iter().zip(names);
        let others = others.map(|(other, name)| NamedOther { name, other });
        let without = without.into_iter().map(|other| NamedOther {
            name: self.rename(&other.name),
            other,
        });
        (named, others.chain(without).collect())
    }
}

/// Names whose numbers are counted from 0 without gaps, each among those behind the same beginning: `nn.Sequential` numbers
/// layers without parameters, too.
fn contiguous(names: &[&str]) -> Vec<String> {
    let mut numbers: BTreeMap<String, BTreeMap<usize, usize>> = BTreeMap::new();
    for name in names {
        for (before, number) in numbered(name) {
            numbers.entry(before).or_default().insert(number, 0);
        }
    }
    for counted in numbers.values_mut() {
        for (count, (_, place)) in counted.iter_mut().enumerate() {
            *place = count;
        }
    }
    names
        .iter()
        .map(|name| {
            let mut places = numbered(name)
                .into_iter()
                .map(|(before, number)| numbers[&before][&number]);
            let parts = name.split('.').map(|part| match part.parse::<usize>() {
                Ok(_) => places
                    .next()
                    .map_or_else(String::new, |place| place.to_string()),
                Err(_) => part.to_owned(),
            });
            parts.collect::<Vec<_>>().join(".")
        })
        .collect()
}

/// Each number in a name, with what stands before it.
fn numbered(name: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut before = String::new();
    for part in name.split('.') {
        if let Ok(number) = part.parse() {
            found.push((before.clone(), number));
        }
        before.push_str(part);
        before.push('.');
    }
    found
}

/// The few names that are nearly this one, the nearest first.
pub(crate) fn nearest<'a>(name: &str, among: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut near: Vec<(f64, &str)> = among
        .map(|other| (strsim::normalized_damerau_levenshtein(name, other), other))
        .filter(|(likeness, _)| *likeness >= 0.7)
        .collect();
    near.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(other.1)));
    near.truncate(2);
    near.into_iter().map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_without_gaps_each_behind_its_own_beginning() {
        let names = [
            "fc.0.weight",
            "fc.2.weight",
            "fc.2.5.bias",
            "fc.4.weight",
            "a.7.b",
        ];
        assert_eq!(
            contiguous(&names),
            [
                "fc.0.weight",
                "fc.1.weight",
                "fc.1.0.bias",
                "fc.2.weight",
                "a.0.b"
            ]
        );
    }

    #[test]
    fn renamings_follow_each_other() {
        let mut names = Names::default();
        for (from, to) in [("^model\\.", ""), ("self_attn", "attention")] {
            names
                .remappings
                .push((Regex::new(from).unwrap(), to.to_owned()));
        }
        assert_eq!(
            names.rename("model.layers.0.self_attn.q"),
            "layers.0.attention.q"
        );
    }

    #[test]
    fn the_nearest_names_come_first_and_far_ones_not_at_all() {
        let among = ["layers.0.weight", "layers.10.weight", "head.bias"];
        let near = nearest("layer.0.weight", among.into_iter());
        assert_eq!(near, ["layers.0.weight", "layers.10.weight"]);
    }
}

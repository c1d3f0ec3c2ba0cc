//! Each parameter's tensor, or why it has none.

use std::collections::{HashMap, HashSet};

use burn::module::ParamId;
use burn::tensor::DType;
use checkpoint::{Checkpoint, Other, TensorRange, Unreadable};

use super::convention::{is_linear_weight, last, norm_name};
use super::names::{Named, NamedOther, Names, nearest};
use super::{Convention, Kind, Mismatch, Problem, Slot};
use crate::carry::Source;
use crate::change::Cast;

/// What is asked of the match, and what the device can do.
pub(crate) struct Wanted<'a> {
    pub names: &'a Names,
    /// As the caller says; else the file is asked.
    pub convention: Option<Convention>,
    /// What floats become, where not what they are stored as.
    pub cast: Option<DType>,
    pub is_partial: bool,
    pub is_unused_allowed: bool,
    /// Of each device that parameters go to.
    pub devices: &'a [Abilities],
}

/// What a device can do.
pub(crate) struct Abilities {
    /// What its integers and booleans are.
    pub int: DType,
    pub bool: DType,
    pub supports: Box<dyn Fn(DType) -> bool>,
    pub max_tensor_bytes: Option<u64>,
}

/// A parameter, and what it is loaded from.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Which of the module's.
    pub slot: usize,
    pub source: Source,
    /// Whether rows and columns are exchanged on the way.
    pub is_transposed: bool,
    /// Which item's tensor it shares, where they are one parameter.
    pub same_as: Option<usize>,
}

/// Harmless where no parameter is for them: counters, and what counts from 0 on.
const COUNTERS: [&str; 2] = ["num_batches_tracked", "position_ids"];

/// What every parameter is loaded from, in the module's order.
pub(crate) fn fit(
    checkpoint: &Checkpoint,
    slots: &[Slot],
    wanted: &Wanted<'_>,
) -> Result<Vec<Item>, Mismatch> {
    let (named, others) = wanted.names.apply(checkpoint);
    let mut fitting = Fitting {
        checkpoint,
        slots,
        wanted,
        others: &others,
        convention: wanted.convention.or_else(|| Convention::of(checkpoint)),
        problems: Vec::new(),
    };
    if let (None, Some(framework)) = (wanted.convention, Convention::foreign(checkpoint)) {
        fitting.problems.push(Problem::Foreign {
            framework: framework.to_owned(),
        });
    }
    let found = fitting.find(&named);
    let orientation = fitting.orientations(&found);
    let mut items: Vec<Item> = Vec::new();
    for (slot, tensor) in found.of.iter().enumerate() {
        if let Some(tensor) = tensor
            && let Some(item) = fitting.item(slot, tensor, orientation)
        {
            items.push(item);
        }
    }
    fitting.twins(&found, &mut items);
    if let Some(prefix) = fitting.prefix(&named) {
        fitting
            .problems
            .retain(|problem| !matches!(problem, Problem::Missing { .. }));
        fitting.problems.push(prefix);
    } else if !wanted.is_unused_allowed {
        fitting.unused(&named, &found);
    }
    if items.is_empty() && fitting.problems.is_empty() {
        fitting.problems.push(Problem::Nothing);
    }
    match fitting.problems.is_empty() {
        true => Ok(items),
        false => Err(Mismatch {
            file: checkpoint.path().to_owned(),
            problems: fitting.problems,
        }),
    }
}

struct Fitting<'a> {
    checkpoint: &'a Checkpoint,
    slots: &'a [Slot],
    wanted: &'a Wanted<'a>,
    /// What of the checkpoint cannot be read.
    others: &'a [NamedOther<'a>],
    convention: Option<Convention>,
    problems: Vec<Problem>,
}

/// Tensors by parameter.
struct Found<'a> {
    /// For each parameter.
    of: Vec<Option<&'a TensorRange>>,
    /// Those parameters that have none of their own, and may be one with another.
    without: Vec<usize>,
    /// The same of those that are not asked for.
    beside: Vec<usize>,
    /// Names in the file that are somebody's.
    used: HashSet<&'a str>,
    /// Those of parameters that are not asked for.
    passed_over: HashSet<&'a str>,
}

/// What the matrices that are no squares say of those that are.
#[derive(Debug, Clone, Copy, Default)]
struct Orientation {
    transposed: bool,
    straight: bool,
    /// A column-major layer's matrix that is no square is there.
    columns_first: bool,
}

impl<'a> Fitting<'a> {
    /// The names that a parameter may have.
    fn candidates(&self, slot: &Slot) -> Vec<String> {
        let mut names = vec![slot.path.clone()];
        if !slot.path_without_variants.is_empty() {
            names.push(slot.path_without_variants.clone());
        }
        if self.convention != Some(Convention::Burn)
            && let Some(norm) = norm_name(slot)
        {
            for at in 0..names.len() {
                let own = last(&names[at]).len();
                let before = &names[at][..names[at].len() - own];
                names.push(format!("{before}{norm}"));
            }
        }
        names
    }

    fn find<'b>(&mut self, named: &'b [Named<'b>]) -> Found<'b> {
        let mut by_name: HashMap<&str, Vec<&'b TensorRange>> = HashMap::new();
        for named in named {
            by_name.entry(&named.name).or_default().push(named.tensor);
        }
        let mut others: HashMap<&str, &Other> = HashMap::new();
        for named in self.others {
            if !matches!(named.other.reason, Unreadable::Missing { .. }) {
                others.entry(&named.name).or_insert(named.other);
            }
        }
        let mut found = Found {
            of: vec![None; self.slots.len()],
            without: Vec::new(),
            beside: Vec::new(),
            used: HashSet::new(),
            passed_over: HashSet::new(),
        };
        for (place, slot) in self.slots.iter().enumerate() {
            let candidates = self.candidates(slot);
            if !self.wanted.names.wants(slot) {
                let own = candidates.iter().filter_map(|name| by_name.get(&**name));
                let own = own.flatten().map(|tensor| &*tensor.name);
                found.passed_over.extend(own);
                // One that is the same parameter as another that is wanted goes with it, where the file has nothing for it.
                if !candidates.iter().any(|name| by_name.contains_key(&**name)) {
                    found.beside.push(place);
                }
                continue;
            }
            let tensors: Vec<&TensorRange> = candidates
                .iter()
                .filter_map(|name| by_name.get(&**name))
                .flatten()
                .copied()
                .collect();
            found
                .used
                .extend(tensors.iter().map(|tensor| &*tensor.name));
            match tensors[..] {
                [] => {
                    if !self.is_unreadable(slot, &candidates, &others) {
                        found.without.push(place);
                    }
                }
                [tensor] => found.of[place] = Some(tensor),
                _ => self.problems.push(Problem::Twice {
                    path: slot.path.clone(),
                    tensors: tensors.iter().map(|tensor| tensor.name.clone()).collect(),
                }),
            }
        }
        found
    }

    /// Whether the file has something for a parameter that cannot be read: nothing else stands in for it.
    fn is_unreadable(
        &mut self,
        slot: &Slot,
        candidates: &[String],
        others: &HashMap<&str, &Other>,
    ) -> bool {
        let mut candidates = candidates.iter();
        let other = candidates.find_map(|name| others.get(&**name).copied());
        if let Some(other) = other {
            self.problems.push(Problem::Dtype {
                path: slot.path.clone(),
                tensor: other.name.clone(),
                reason: other.reason.to_string(),
            });
        }
        other.is_some()
    }

    /// Which way round the matrices of linear layers are that can only be one way.
    fn orientations(&self, found: &Found<'_>) -> Orientation {
        let mut seen = Orientation::default();
        for (slot, tensor) in self.slots.iter().zip(&found.of) {
            let Some(tensor) = tensor.filter(|_| is_linear_weight(slot)) else {
                continue;
            };
            if slot.has_load_mapper {
                seen.columns_first |= slot.shape[0] != slot.shape[1];
                continue;
            }
            if let (&[rows, columns], &[a, b]) = (&tensor.shape[..], &logical(slot)[..])
                && rows != columns
            {
                seen.transposed |= (rows, columns) == (b, a);
                seen.straight |= (rows, columns) == (a, b);
            }
        }
        seen
    }

    /// Whether a linear layer's weight lies in the file as `[outputs, inputs]`; `None` where that cannot be told. What the file
    /// says, or the caller, holds for every layer: one that is the other way round is another layer's.
    fn is_outputs_first(&self, seen: Orientation) -> Option<bool> {
        match (self.convention, seen.transposed, seen.straight) {
            (Some(convention), _, _) => Some(convention == Convention::PyTorch),
            (None, true, false) => Some(true),
            (None, false, true) => Some(false),
            (None, _, _) => None,
        }
    }

    /// Whether a column-major layer's weight in a file that says it is Burn's may be a row-major layer's, which is the other way
    /// round: nothing but squares is there to tell.
    fn is_of_either_layout(&self, slot: &Slot, seen: Orientation) -> bool {
        let is_square = slot.shape[0] == slot.shape[1];
        let is_of_burn =
            self.wanted.convention.is_none() && self.convention == Some(Convention::Burn);
        is_of_burn && is_square && !seen.columns_first
    }

    fn item(&mut self, place: usize, tensor: &TensorRange, seen: Orientation) -> Option<Item> {
        let slot = &self.slots[place];
        let mut range = tensor.clone();
        if range.shape.is_empty() && slot.shape.iter().product::<usize>() == 1 {
            // PyTorch's scalars have no dimensions, and Burn's tensors have at least one.
            range.shape.clone_from(&slot.shape);
            range.strides = vec![1; slot.shape.len()];
        }
        let mut expected = slot.shape.clone();
        let mut is_transposed = false;
        if is_linear_weight(slot) && range.shape.len() == 2 {
            let known = match slot.has_load_mapper {
                // A file of Burn's has the weights of both kinds of layers, each as it is saved; a square does not say which.
                true if self.is_of_either_layout(slot, seen) => None,
                true => Some(true),
                false => self.is_outputs_first(seen),
            };
            let Some(is_outputs_first) = known else {
                self.problems.push(Problem::Orientation {
                    path: slot.path.clone(),
                    shape: slot.shape.clone(),
                });
                return None;
            };
            let [inputs, outputs] = logical(slot);
            // What goes through a layer's own function is transposed by it; and by another before Burn saves it.
            is_transposed = is_outputs_first && !slot.has_load_mapper;
            expected = match is_outputs_first || slot.has_load_mapper {
                true => vec![outputs, inputs],
                false => vec![inputs, outputs],
            };
        }
        if range.shape != expected {
            self.problems.push(Problem::Shape {
                path: slot.path.clone(),
                shape: expected,
                tensor: tensor.name.clone(),
                found: tensor.shape.clone(),
            });
            return None;
        }
        if is_transposed {
            range = range.transposed();
        }
        let source = self.source(slot, range)?;
        let bytes = source.bytes();
        let limit = self.wanted.devices[slot.device].max_tensor_bytes;
        if let Some(limit) = limit.filter(|&limit| bytes > limit) {
            self.problems.push(Problem::TooLarge {
                path: slot.path.clone(),
                bytes,
                limit,
            });
            return None;
        }
        Some(Item {
            slot: place,
            source,
            is_transposed,
            same_as: None,
        })
    }

    /// What becomes of the elements.
    fn source(&mut self, slot: &Slot, tensor: TensorRange) -> Option<Source> {
        let stored = tensor.dtype;
        let device = &self.wanted.devices[slot.device];
        let into = match slot.kind {
            Kind::Float => match self.wanted.cast {
                Some(dtype) => dtype,
                None => crate::change::burn_dtype(stored),
            },
            Kind::Int => device.int,
            Kind::Bool => device.bool,
        };
        let is_kind = match slot.kind {
            Kind::Float => stored.is_float(),
            Kind::Int => stored.is_int(),
            Kind::Bool => stored == checkpoint::Dtype::Bool,
        };
        let cast = Cast::new(stored, into).filter(|_| is_kind);
        let reason = match cast {
            None => Some(format!("is {stored}, and the parameter is {}", slot.kind)),
            Some(_) if !(device.supports)(into) => Some(format!(
                "is {stored}, and the device does not compute in {}",
                into.name()
            )),
            Some(_) => None,
        };
        match (cast, reason) {
            (Some(cast), None) => Some(Source { tensor, cast }),
            (_, reason) => {
                self.problems.push(Problem::Dtype {
                    path: slot.path.clone(),
                    tensor: tensor.name.clone(),
                    reason: reason.unwrap_or_default(),
                });
                None
            }
        }
    }

    /// What is found for a parameter is that of every other one that is the same, where the file has it once.
    fn twins(&mut self, found: &Found<'_>, items: &mut Vec<Item>) {
        let mut by_id: HashMap<ParamId, Vec<usize>> = HashMap::new();
        for (place, item) in items.iter().enumerate() {
            by_id
                .entry(self.slots[item.slot].id)
                .or_default()
                .push(place);
        }
        // Clones of a module have the identities of its parameters, too: where the file has several tensors for one identity,
        // they are several parameters.
        let is_one = |places: &[usize], items: &[Item]| {
            let first = &items[places[0]].source.tensor;
            places
                .iter()
                .all(|&place| items[place].source.tensor == *first)
        };
        for &place in found.without.iter().chain(&found.beside) {
            let slot = &self.slots[place];
            let twins = by_id.get(&slot.id).filter(|twins| is_one(twins, items));
            // A table and a linear layer's weight lie the other way round in PyTorch: they are one there, and here they are not.
            let is_alike = |other: &Slot| {
                other.shape == slot.shape && is_linear_weight(other) == is_linear_weight(slot)
            };
            let mut twins = twins.into_iter().flatten().copied();
            let twin = twins.find(|&twin| {
                let other = &self.slots[items[twin].slot];
                is_alike(other) && !are_clones(&other.path, &slot.path)
            });
            match twin {
                Some(twin) => items.push(Item {
                    slot: place,
                    ..items[twin].clone()
                }),
                None if self.wanted.is_partial || found.beside.binary_search(&place).is_ok() => {}
                None => {
                    let free = self.checkpoint.all().map(|tensor| &*tensor.name);
                    let free = free.filter(|name| !found.used.contains(name));
                    let near = match self.problems.len() < 64 {
                        true => nearest(&slot.path, free),
                        false => Vec::new(),
                    };
                    self.problems.push(Problem::Missing {
                        path: slot.path.clone(),
                        shape: slot.shape.clone(),
                        nearest: near,
                    });
                }
            }
        }
    }

    /// What stands before all names of the file that are missing without it, where there is such a thing: wrappers leave it.
    fn prefix(&self, named: &[Named<'_>]) -> Option<Problem> {
        let missing: HashSet<&str> = self
            .problems
            .iter()
            .filter_map(|problem| match problem {
                Problem::Missing { path, .. } => Some(&**path),
                _ => None,
            })
            .collect();
        let mut slots = self.slots.iter();
        let first = slots.find(|slot| missing.contains(&*slot.path))?;
        let names: HashSet<&str> = named.iter().map(|named| &*named.name).collect();
        let candidates = self.candidates(first);
        let prefix = named.iter().find_map(|named| {
            let before = |name: &String| named.name.strip_suffix(&**name);
            let mut before = candidates.iter().filter_map(before);
            before.find(|prefix| prefix.ends_with('.'))
        })?;
        let is_there = |slot: &Slot| {
            let mut candidates = self.candidates(slot).into_iter();
            candidates.any(|name| names.contains(&*format!("{prefix}{name}")))
        };
        let mut lacking = self.slots.iter();
        let is_all = lacking.all(|slot| !missing.contains(&*slot.path) || is_there(slot));
        is_all.then(|| Problem::Prefixed {
            prefix: prefix.to_owned(),
            count: missing.len(),
        })
    }

    /// What the file has, and nobody asks for.
    fn unused(&mut self, named: &[Named<'_>], found: &Found<'_>) {
        let is_counter = |name: &str| COUNTERS.contains(&last(name));
        let readable = named.iter().filter(|named| {
            let name = &*named.tensor.name;
            let is_known = found.used.contains(name) || found.passed_over.contains(name);
            !is_known && self.wanted.names.wants_name(&named.name)
        });
        let readable = readable.map(|named| (&*named.tensor.name, named.tensor.shape.clone()));
        let others = self.others.iter().filter(|named| {
            let reason = &named.other.reason;
            let is_nothing = matches!(reason, Unreadable::NoTensor | Unreadable::Missing { .. });
            !is_nothing && self.wanted.names.wants_name(&named.name)
        });
        let others = others.map(|named| (&*named.other.name, Vec::new()));
        let told: HashSet<String> = self
            .problems
            .iter()
            .filter_map(|problem| match problem {
                Problem::Dtype { tensor, .. } => Some(tensor.clone()),
                _ => None,
            })
            .collect();
        let missing: Vec<&str> = found
            .without
            .iter()
            .map(|&place| &*self.slots[place].path)
            .collect();
        let unused: Vec<Problem> = readable
            .chain(others)
            .filter(|(name, _)| !is_counter(name) && !told.contains(*name))
            .enumerate()
            .map(|(count, (name, shape))| Problem::Unused {
                tensor: name.to_owned(),
                shape,
                nearest: match count < 64 {
                    true => nearest(&self.wanted.names.rename(name), missing.iter().copied()),
                    false => Vec::new(),
                },
            })
            .collect();
        self.problems.extend(unused);
    }
}

/// Whether paths differ in numbers alone: `vec![layer; n]` clones identities, too, and its layers are several.
fn are_clones(one: &str, other: &str) -> bool {
    let is_number = |part: &str| part.parse::<usize>().is_ok();
    let (one, other) = (one.split('.'), other.split('.'));
    one.clone().count() == other.clone().count()
        && one
            .zip(other)
            .all(|(one, other)| one == other || (is_number(one) && is_number(other)))
}

/// A linear layer's shape as `[inputs, outputs]`, whichever it shows: one of column-major layout shows the other until it is
/// initialised (burn-nn 0.21).
fn logical(slot: &Slot) -> [usize; 2] {
    match (slot.has_load_mapper, slot.is_initialised) {
        (true, false) => [slot.shape[1], slot.shape[0]],
        _ => [slot.shape[0], slot.shape[1]],
    }
}

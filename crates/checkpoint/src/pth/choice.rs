//! Which of a pickle's dictionaries is the state dict.

use std::collections::{HashSet, VecDeque};

use super::tensor::{Built, built};
use super::value::{Key, Pickle, Value};
use crate::{Holds, StateDictAt};

/// Where training programs keep the state dict among the rest of what they save.
const USUAL_KEYS: [&str; 4] = ["model_state_dict", "state_dict", "model", "module"];
/// How many usual keys may stand in each other.
const MAX_USUAL: usize = 4;
/// How many containers are looked into for tensors.
const MAX_CONTAINERS: usize = 100_000;
/// How many state dicts an error names.
const MAX_NAMED: usize = 6;

/// The state dict: the result of the pickle itself, or one that it holds under a usual key.
pub(super) fn usual(pickle: &Pickle) -> Result<Value, Holds> {
    let root = pickle.root;
    if let Some(found) = under_usual_keys(pickle, root, MAX_USUAL) {
        // Beside a state dict may be tensors, but not as many as in it: then they are another one, and which is meant is not known.
        return match tensors_in(pickle, root) < tensors_in(pickle, found).max(2) {
            true => Ok(found),
            false => Err(holds(pickle)),
        };
    }
    let Some(entries) = pickle.entries(root) else {
        return Err(holds(pickle));
    };
    // An empty dictionary is a state dict, too: what is missing is said by whoever needs it.
    if entries.is_empty() {
        return Ok(root);
    }
    // What is saved beside a state dict may be tensors, too: a random generator's state.
    let own = Count::of(entries.iter().map(|(_, value)| built(pickle, *value)));
    let inner = inner(pickle);
    let most = |count: fn(&Count) -> usize| inner.iter().map(|inner| count(&inner.count)).max();
    let is_root = match own.tensors {
        0 => {
            own.arrays > 0 && most(|count| count.tensors + count.arrays).unwrap_or(0) <= own.arrays
        }
        own => most(|count| count.tensors).unwrap_or(0) < own,
    };
    match is_root {
        true => Ok(root),
        false => Err(holds(pickle)),
    }
}

/// The dictionary at this path of keys.
pub(super) fn at(pickle: &Pickle, path: &str) -> Result<Value, Holds> {
    let found = match path {
        "" => Some(pickle.root),
        path => follow(pickle, pickle.root, path),
    };
    let Some(value) = found else {
        return Err(holds(pickle));
    };
    match built(pickle, value) {
        Built::Module(class) => Err(Holds::Module {
            key: path.to_owned(),
            class: class.to_owned(),
        }),
        _ if pickle.entries(value).is_some() => Ok(value),
        _ => Err(holds(pickle)),
    }
}

/// Keys may have dots in them: of those that fit, the longest is tried first.
fn follow(pickle: &Pickle, from: Value, path: &str) -> Option<Value> {
    let mut fitting: Vec<(&str, Value)> = children(pickle, from)
        .filter_map(|(key, value)| {
            let rest = path.strip_prefix(&*key.to_string())?;
            Some((rest, value))
        })
        .collect();
    fitting.sort_by_key(|(rest, _)| rest.len());
    let mut found = fitting.into_iter().filter_map(|(rest, value)| match rest {
        "" => Some(value),
        rest => follow(pickle, value, rest.strip_prefix('.')?),
    });
    found.next()
}

fn under_usual_keys(pickle: &Pickle, from: Value, depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let entries = pickle.entries(from)?;
    let of = |wanted: &str| {
        let mut entries = entries.iter();
        let found = entries.find(|(key, _)| pickle.str(*key) == Some(wanted));
        found.map(|(_, value)| *value)
    };
    let values: Vec<Value> = USUAL_KEYS.into_iter().filter_map(of).collect();
    let has_tensors = |value: &&Value| tensors_in(pickle, **value) > 0;
    let found = values.iter().find(has_tensors).copied();
    found.or_else(|| {
        let mut inner = values.iter();
        inner.find_map(|value| under_usual_keys(pickle, *value, depth))
    })
}

/// How many tensors and arrays a dictionary has of its own.
fn tensors_in(pickle: &Pickle, dictionary: Value) -> usize {
    let entries = pickle.entries(dictionary).unwrap_or_default();
    let count = Count::of(entries.iter().map(|(_, value)| built(pickle, *value)));
    count.tensors + count.arrays
}

/// How many tensors a dictionary has of its own.
#[derive(Clone, Copy, Default)]
struct Count {
    tensors: usize,
    arrays: usize,
}

impl Count {
    fn of<'a>(values: impl Iterator<Item = Built<'a>>) -> Count {
        values.fold(Count::default(), |count, value| match value {
            Built::Tensor(_) | Built::Refused(_) => Count {
                tensors: count.tensors + 1,
                ..count
            },
            Built::Array => Count {
                arrays: count.arrays + 1,
                ..count
            },
            Built::Module(_) | Built::Nothing => count,
        })
    }
}

/// What lies in the pickle's result, at any depth.
struct Inner<'a> {
    /// That which holds it, by its place; the result itself is nobody's.
    parent: Option<usize>,
    key: Key<'a>,
    count: Count,
    module: Option<&'a str>,
}

/// The containers and modules within the result, those nearest to it first. Each is looked into once, though it be held twice.
fn inner(pickle: &Pickle) -> Vec<Inner<'_>> {
    let mut found: Vec<Inner<'_>> = Vec::new();
    let mut seen = HashSet::new();
    let mut queue: VecDeque<(Option<usize>, Value)> = VecDeque::from([(None, pickle.root)]);
    while let Some((parent, from)) = queue.pop_front() {
        for (key, value) in children(pickle, from) {
            let Value::Node(id) = value else { continue };
            if seen.contains(&id) {
                continue;
            }
            let module = match built(pickle, value) {
                Built::Module(class) => Some(class),
                Built::Nothing => None,
                Built::Tensor(_) | Built::Refused(_) | Built::Array => continue,
            };
            let is_container = module.is_some() || children(pickle, value).next().is_some();
            if !is_container || found.len() == MAX_CONTAINERS || !seen.insert(id) {
                continue;
            }
            let entries = pickle.entries(value).unwrap_or_default();
            found.push(Inner {
                parent,
                key,
                count: Count::of(entries.iter().map(|(_, value)| built(pickle, *value))),
                module,
            });
            queue.push_back((Some(found.len() - 1), value));
        }
    }
    found
}

/// What a container holds, by its keys.
fn children(pickle: &Pickle, of: Value) -> impl Iterator<Item = (Key<'_>, Value)> {
    let entries = pickle.entries(of).unwrap_or_default().iter();
    let named = entries.filter_map(|(key, value)| Some((pickle.key(*key)?, *value)));
    let elements = pickle.elements(of);
    named.chain(elements.map(|(at, value)| (Key::Number(at as i64), value)))
}

/// What a pickle holds in which no state dict is found.
fn holds(pickle: &Pickle) -> Holds {
    if let Built::Module(class) = built(pickle, pickle.root) {
        return Holds::Module {
            key: String::new(),
            class: class.to_owned(),
        };
    }
    if !matches!(built(pickle, pickle.root), Built::Nothing) {
        return Holds::Tensor;
    }
    let inner = inner(pickle);
    let path = |at: usize| {
        let up = std::iter::successors(Some(at), |at| inner[*at].parent);
        let mut keys: Vec<String> = up.map(|at| inner[at].key.to_string()).collect();
        keys.reverse();
        keys.join(".")
    };
    let mut with_tensors: Vec<(usize, usize)> = (0..inner.len())
        .map(|at| (inner[at].count.tensors, at))
        .filter(|(tensors, _)| *tensors > 0)
        .collect();
    if with_tensors.is_empty() {
        let arrays = (0..inner.len()).map(|at| (inner[at].count.arrays, at));
        with_tensors = arrays.filter(|(arrays, _)| *arrays > 0).collect();
    }
    if let Some(at) = inner.iter().position(|inner| inner.module.is_some())
        && with_tensors.is_empty()
    {
        return Holds::Module {
            key: path(at),
            class: inner[at].module.unwrap_or_default().to_owned(),
        };
    }
    if with_tensors.is_empty() {
        return match container_of_tensors(pickle) {
            Some(container) => Holds::Unnamed { container },
            None => Holds::Nothing,
        };
    }
    // The largest first: that of a model, and not those that an optimizer has for each parameter.
    with_tensors.sort_by_key(|(tensors, at)| (std::cmp::Reverse(*tensors), *at));
    let named = with_tensors.iter().take(MAX_NAMED);
    Holds::StateDicts {
        more: with_tensors.len().saturating_sub(MAX_NAMED),
        found: named
            .map(|&(tensors, at)| StateDictAt {
                key: path(at),
                tensors,
            })
            .collect(),
    }
}

/// The outermost object, list or tuple in which there is a tensor, at whatever depth and by whatever way.
fn container_of_tensors(pickle: &Pickle) -> Option<String> {
    let mut seen = HashSet::new();
    let mut queue: VecDeque<(Option<Value>, Value)> = VecDeque::from([(None, pickle.root)]);
    while let Some((outermost, value)) = queue.pop_front() {
        let Value::Node(id) = value else { continue };
        if seen.len() == MAX_CONTAINERS || !seen.insert(id) {
            continue;
        }
        match (built(pickle, value), outermost) {
            (Built::Tensor(_) | Built::Refused(_) | Built::Array, outermost) => {
                return outermost.map(|outermost| described(pickle, outermost));
            }
            (Built::Module(_) | Built::Nothing, _) => {}
        }
        let is_dictionary = pickle.entries(value).is_some();
        let outermost = outermost.or((!is_dictionary).then_some(value));
        let held = children(pickle, value).map(|(_, value)| value);
        let object = pickle.object(value).into_iter();
        let own = object.flat_map(|object| object.state.into_iter().chain([object.arguments]));
        queue.extend(held.chain(own).map(|value| (outermost, value)));
    }
    None
}

fn described(pickle: &Pickle, container: Value) -> String {
    match pickle.object(container) {
        Some(object) => {
            let class = pickle.class(object).unwrap_or("a class without a name");
            format!("an object of the class {}", crate::escaped(class))
        }
        None if pickle.tuple(container).is_some() => "a tuple".to_owned(),
        None => "a list".to_owned(),
    }
}

//! What a training program says of itself beside the weights: numbers and short texts, by the path of keys to each.

use std::collections::BTreeMap;

use super::value::{Pickle, Value};

/// Deeper than this is no configuration.
const MAX_DEPTH: usize = 4;
/// A dictionary of more entries is a log or a vocabulary, and no configuration.
const MAX_ENTRIES: usize = 1_000;
/// What is said in all; the rest is left out, from the deepest on.
const MAX_ALL: usize = 10_000;
const MAX_KEY_BYTES: usize = 256;
const MAX_TEXT_BYTES: usize = 4096;

/// Numbers, texts and truth values that a pickle holds in dictionaries, but for `state_dict`: `model_args.n_head` → `12`.
pub(super) fn beside(pickle: &Pickle, state_dict: Value) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut level = vec![(String::new(), pickle.root)];
    for _ in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for (prefix, from) in level {
            let entries = entries(pickle, from).unwrap_or_default();
            if entries.len() > MAX_ENTRIES {
                continue;
            }
            for &(key, value) in entries {
                let key = match pickle.key(key).map(|key| key.to_string()) {
                    Some(key) if key.len() <= MAX_KEY_BYTES => format!("{prefix}{key}"),
                    _ => continue,
                };
                if all.len() + next.len() == MAX_ALL {
                    return all;
                }
                if let Some(said) = said(pickle, value) {
                    all.insert(key, said);
                } else if value != state_dict && entries_of_some(pickle, value) {
                    next.push((format!("{key}."), value));
                }
            }
        }
        level = next;
    }
    all
}

fn entries_of_some(pickle: &Pickle, value: Value) -> bool {
    entries(pickle, value).is_some_and(|entries| !entries.is_empty())
}

/// The entries of a dictionary, or the attributes of an object such as `argparse.Namespace`.
fn entries(pickle: &Pickle, value: Value) -> Option<&[(Value, Value)]> {
    let attributes = || pickle.entries(pickle.object(value)?.state?);
    pickle.entries(value).or_else(attributes)
}

fn said(pickle: &Pickle, value: Value) -> Option<String> {
    match value {
        Value::None => Some("null".to_owned()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Int(value) => Some(value.to_string()),
        Value::Float(value) => Some(format!("{value:?}")),
        Value::Opaque => None,
        Value::Node(_) => {
            let text = pickle.str(value)?;
            (text.len() <= MAX_TEXT_BYTES).then(|| text.to_owned())
        }
    }
}

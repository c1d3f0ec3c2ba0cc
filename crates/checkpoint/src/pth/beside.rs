//! What a training program says of itself beside the weights: numbers and short texts, by the path of keys to each.

use std::collections::BTreeMap;

use super::value::{Node, Pickle, Value};

/// Deeper than this is no configuration.
const MAX_DEPTH: usize = 4;
/// A dictionary of more entries is a log or a vocabulary, and no configuration.
const MAX_ENTRIES: usize = 1_000;
/// What is said in all; the rest is left out, from the deepest on.
const MAX_ALL: usize = 10_000;
/// What stands before the arguments that a model was made with, as nanoGPT saves them.
const ARGUMENTS: &str = "model_args.";
const MAX_KEY_BYTES: usize = 256;
const MAX_TEXT_BYTES: usize = 4096;

/// Numbers, texts and truth values that a pickle holds in dictionaries, but for `state_dict`: `model_args.n_head` → `12`. Of other
/// values among a model's arguments, what they are.
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
                    Some(key) => {
                        let end = key.floor_char_boundary(MAX_KEY_BYTES);
                        format!("{prefix}{}", &key[..end])
                    }
                    None => continue,
                };
                if all.len() + next.len() == MAX_ALL {
                    return all;
                }
                if let Some(said) = said(pickle, value) {
                    all.insert(key, said);
                    continue;
                }
                if key.starts_with(ARGUMENTS) {
                    // No argument of a model is passed over.
                    all.insert(key.clone(), kind(pickle, value));
                }
                if value != state_dict && entries_of_some(pickle, value) {
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

/// What a value is that is no number, no short text and no truth value.
fn kind(pickle: &Pickle, value: Value) -> String {
    match pickle.node(value) {
        Some(Node::Str(text)) => format!("a text of {} bytes", text.len()),
        Some(Node::Tuple(_)) => "a tuple".to_owned(),
        Some(Node::List { .. }) => "a list".to_owned(),
        Some(Node::Dict(_)) => "a dictionary".to_owned(),
        Some(Node::Global(name)) => name.to_string(),
        Some(Node::Object(object)) => {
            let class = pickle.class(object).unwrap_or("a class without a name");
            format!("an object, made by {class}")
        }
        Some(Node::Persistent(_)) | None => "a value that is not read here".to_owned(),
    }
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

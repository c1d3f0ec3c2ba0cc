//! What wrappers of PyTorch put into the names of what they wrap.

use std::collections::{HashMap, HashSet};

use checkpoint::{Checkpoint, Error};

/// Of compilation, activation checkpointing, sharded and distributed training.
const WRAPPERS: [&str; 5] = [
    "_orig_mod",
    "_checkpoint_wrapped_module",
    "_fsdp_wrapped_module",
    "_forward_module",
    "module",
];

/// The checkpoint without wrappers in its names, and what stands in the file for each name that had any. Where two names would
/// be one, all stay as they are.
pub fn unwrapped(checkpoint: Checkpoint) -> Result<(Checkpoint, HashMap<String, String>), Error> {
    let mut wrapped = HashMap::new();
    let mut tensors = checkpoint.tensors().to_vec();
    let mut others = checkpoint.others().to_vec();
    let names = tensors.iter_mut().map(|tensor| &mut tensor.name);
    for name in names.chain(others.iter_mut().map(|other| &mut other.name)) {
        let bare = without_wrappers(name);
        if bare != *name {
            wrapped.insert(bare.clone(), std::mem::replace(name, bare));
        }
    }
    let names = tensors.iter().map(|tensor| &*tensor.name);
    let names: HashSet<&str> = names
        .chain(others.iter().map(|other| &*other.name))
        .collect();
    if wrapped.is_empty() || names.len() < tensors.len() + others.len() {
        return Ok((checkpoint, HashMap::new()));
    }
    Ok((
        checkpoint.with_tensors(tensors)?.with_others(others),
        wrapped,
    ))
}

pub fn without_wrappers(name: &str) -> String {
    let parts = name.split('.').filter(|part| !WRAPPERS.contains(part));
    parts.collect::<Vec<_>>().join(".")
}

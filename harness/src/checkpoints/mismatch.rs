//! What a user's checkpoint lacks of the model it is of, has besides, or has in another shape.

use std::collections::HashSet;
use std::fmt::Write;

use anyhow::ensure;
use checkpoint::{Other, Unreadable, quoted};
use gpt2::layout::{Essential, Named};
use gpt2::{Config, Size};

/// How many tensors of a kind a message names.
const SHOWN: usize = 12;

/// Missing, unexpected and mis-shaped tensors, all in one message, under the names that the file has or should have for
/// them. What is unexpected is let pass where this is not `strict`, unless the model computes with it.
pub fn check(opened: &Named, config: &Config, strict: bool) -> anyhow::Result<()> {
    let (missing, misshapen) = absent_or_misshapen(opened, config);
    let only_unexpected = missing.is_empty() && misshapen.is_empty();
    let mut essential = None;
    let mut unexpected = Vec::new();
    for (name, shape) in &opened.unexpected {
        // One is enough to refuse the checkpoint.
        let is_first = essential.is_none();
        let reason = is_first.then(|| opened.essential(name)).flatten();
        if strict || (only_unexpected && reason.is_some()) {
            unexpected.push(format!("{} {shape:?}", quoted(name)));
        }
        essential = essential.or(reason.map(|reason| (name, reason)));
    }
    for other in opened.unreadable.iter().filter(|other| !is_harmless(other)) {
        let reason = opened.essential(&other.name);
        if strict || (only_unexpected && reason.is_some()) {
            unexpected.push(format!("{}, which {}", quoted(&other.name), other.reason));
        }
        essential = essential.or(reason.map(|reason| (&other.name, reason)));
    }
    // What the layout knows, and a model of this size has not.
    let own: HashSet<String> = config.tensors().into_iter().map(|spec| spec.name).collect();
    let tied = |name: &str| config.variant.is_tied && name == "out_head.weight";
    let known = opened.sources.iter();
    for (name, written) in known.filter(|(name, _)| !own.contains(*name) && !tied(name)) {
        if let Some(tensor) = opened.checkpoint.find(name) {
            unexpected.push(format!("{} {:?}", quoted(written), tensor.shape));
            let module = written.rsplit_once('.').map_or("", |(module, _)| module);
            let module = module.to_owned();
            essential = essential.or(Some((written, Essential::PartOf { module })));
        }
    }
    let mut message = String::new();
    for (what, list) in [
        ("missing", missing),
        ("of another shape", misshapen),
        ("unexpected", unexpected),
    ] {
        if !list.is_empty() {
            let _ = write!(message, "\n  {what}: {}", some_of(&list));
        }
    }
    let advice = match essential {
        Some((name, reason)) if only_unexpected || reason == Essential::Adapter => {
            format!("\n  {} {reason}", quoted(name))
        }
        None if only_unexpected => {
            "\n  if nothing that the model computes depends on them: --strict=false".to_owned()
        }
        _ => String::new(),
    };
    ensure!(
        message.is_empty(),
        "{}: is no GPT-2 of size {} in the layout `{}`:{message}{advice}",
        opened.checkpoint.path().display(),
        Size::of(*config),
        opened.layout
    );
    Ok(())
}

/// Whether an entry that cannot be read is known to change nothing: counters, the numbers of positions, and what is no tensor and
/// by its name in no module.
fn is_harmless(other: &Other) -> bool {
    const COUNTERS: [&str; 5] = [
        "global_step",
        "n_averaged",
        "num_batches_tracked",
        "position_ids",
        "step",
    ];
    let last = other.name.rsplit('.').next().unwrap_or_default();
    match other.reason {
        Unreadable::NoTensor => !other.name.contains('.') || last == "_extra_state",
        Unreadable::Dtype(_) => COUNTERS.contains(&last),
        _ => false,
    }
}

/// The first of a list, and how many more there are.
fn some_of(list: &[String]) -> String {
    let first = list[..list.len().min(SHOWN)].join(", ");
    match list.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first}, and {more} more"),
    }
}

/// What is missing of the model, and what has another shape; a tensor of the file that holds several of the model's once.
fn absent_or_misshapen(opened: &Named, config: &Config) -> (Vec<String>, Vec<String>) {
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for spec in config.tensors() {
        let written = opened.name_in_file(&spec.name);
        let found = opened.checkpoint.find(&spec.name);
        if found.is_some_and(|found| found.shape == spec.shape) {
            continue;
        }
        let is_new = seen.insert(written.clone());
        let part = match *written == spec.name {
            true => String::new(),
            false => format!(" (the model's {})", spec.name),
        };
        let written = &written;
        match found {
            Some(found) if is_new => misshapen.push(format!(
                "{}{part} is {:?}, not {:?}",
                quoted(written),
                found.shape,
                spec.shape
            )),
            None if is_new => {
                // What is not shown needs no explanation, which is dear where there are many names.
                let why = match missing.len() < SHOWN {
                    true => absence(written, opened),
                    false => String::new(),
                };
                missing.push(format!("{} {:?}{part}{why}", quoted(written), spec.shape));
            }
            _ => {}
        }
    }
    (missing, misshapen)
}

/// Why a tensor that the model needs is not there, or what is there instead.
fn absence(written: &str, opened: &Named) -> String {
    let mut others = opened.checkpoint.others().iter();
    match others.find(|other| other.name == written) {
        Some(other) => format!(" (what is there {})", other.reason),
        None => nearest(written, opened),
    }
}

/// The unexpected tensor that is named most like a missing one.
fn nearest(missing: &str, opened: &Named) -> String {
    const ALIKE: f64 = 0.75;
    let is_near = |name: &str| {
        let (short, long) = (name.len().min(missing.len()), name.len().max(missing.len()));
        short as f64 >= ALIKE * long as f64
    };
    let near = opened.unexpected.iter().filter(|(name, _)| is_near(name));
    let rated = near.map(|near| (strsim::normalized_levenshtein(missing, &near.0), near));
    let best = rated.max_by(|(a, _), (b, _)| a.total_cmp(b));
    match best.filter(|(likeness, _)| *likeness >= ALIKE) {
        Some((_, (name, shape))) => format!(" (there is {} {shape:?})", quoted(name)),
        None => String::new(),
    }
}

//! Reads off a user's checkpoint what model it is of, and says what is wrong with it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use checkpoint::{Dtype, TensorRange};
use gpt2::{Config, Size};
use lab::Named;

/// Reads the dimensions off the shapes. The heads cannot be seen there: a `config.json` beside the checkpoint tells them, as
/// Hugging Face keeps it; every published GPT-2 has heads 64 wide; and for others the size must be given.
pub fn config_of(opened: &Named, given: Option<Size>) -> anyhow::Result<Config> {
    let checkpoint = &opened.checkpoint;
    let find = |name: &str| {
        checkpoint.find(name).with_context(|| {
            format!(
                "{}: holds no tensor `{}`: this is no GPT-2",
                checkpoint.path().display(),
                opened.sources.get(name).map_or(name, |source| &**source)
            )
        })
    };
    let (tokens, positions) = (find("tok_emb.weight")?, find("pos_emb.weight")?);
    let ([vocabulary, embedding], [context, _]) = (&tokens.shape[..], &positions.shape[..]) else {
        bail!(
            "{}: its embeddings are no matrices",
            checkpoint.path().display()
        );
    };
    let layers = opened.sources.keys().filter_map(|name| {
        let layer = name.strip_prefix("trf_blocks.")?.split('.').next()?;
        layer.parse::<usize>().ok()
    });
    let mut config = Config {
        vocabulary: *vocabulary,
        context: *context,
        embedding: *embedding,
        layers: layers.max().map_or(0, |last| last + 1),
        heads: 0,
        qkv_bias: find("trf_blocks.0.att.W_query.bias").is_ok(),
    };
    const HEAD_WIDTH: usize = 64;
    let path = checkpoint.path().display();
    let unexpected = opened.unexpected.iter().take(3);
    let unexpected: Vec<String> = unexpected.map(|(name, _)| format!("`{name}`")).collect();
    ensure!(
        config.layers > 0,
        "{path}: of its tensors none is of a layer as the layout `{}` names them (unknown are {}, …): describe yours in a \
         layout file (--layout)",
        opened.layout,
        unexpected.join(", ")
    );
    match (given.map(Size::config), heads_beside(checkpoint.path())) {
        (Some(given), _) => {
            config.heads = given.heads;
            ensure!(
                given == config,
                "{path}: is a GPT-2 of size {}, not {}",
                Size::of(config),
                Size::of(given)
            );
        }
        (None, Some(heads)) => {
            config.heads = heads;
            ensure!(
                heads > 0 && config.embedding.is_multiple_of(heads),
                "{path}: the config.json beside it speaks of {heads} heads, which do not divide its width of {}",
                config.embedding
            );
        }
        (None, None) if config.embedding.is_multiple_of(HEAD_WIDTH) => {
            config.heads = config.embedding / HEAD_WIDTH;
        }
        (None, None) => {
            config.heads = 1;
            bail!(
                "{path}: its number of heads cannot be read off it: give --size {} with the right -h",
                Size::of(config)
            );
        }
    }
    Ok(config)
}

/// What a `config.json` in the checkpoint's folder says of the heads, where there is one.
fn heads_beside(checkpoint: &Path) -> Option<usize> {
    #[derive(serde::Deserialize)]
    struct Beside {
        #[serde(alias = "num_attention_heads", alias = "n_heads")]
        n_head: usize,
    }
    let folder = match checkpoint.is_dir() {
        true => checkpoint,
        false => checkpoint.parent()?,
    };
    let text = std::fs::read(folder.join("config.json")).ok()?;
    let beside: Beside = serde_json::from_slice(&text).ok()?;
    Some(beside.n_head)
}

/// The model's tensors, in the order of the file.
pub fn tensors<'a>(opened: &'a Named, config: &Config) -> Vec<&'a TensorRange> {
    let names: BTreeMap<_, _> = config
        .tensors()
        .into_iter()
        .map(|spec| (spec.name, ()))
        .collect();
    let all = opened.checkpoint.tensors().iter();
    all.filter(|tensor| names.contains_key(&tensor.name))
        .collect()
}

/// The dtype that all of them have.
pub fn dtype_of(file: &Path, tensors: &[&TensorRange]) -> anyhow::Result<Dtype> {
    let first = tensors
        .first()
        .with_context(|| format!("{}: holds no tensors", file.display()))?;
    let mut others = tensors.iter();
    if let Some(other) = others.find(|tensor| tensor.dtype != first.dtype) {
        bail!(
            "{}: mixes dtypes: `{}` is {}, `{}` is {}: save it in one of them",
            file.display(),
            first.name,
            first.dtype,
            other.name,
            other.dtype
        );
    }
    ensure!(
        Dtype::ALL.contains(&first.dtype),
        "{}: its weights are {}: f32, f16 or bf16 can be loaded",
        file.display(),
        first.dtype
    );
    Ok(first.dtype)
}

/// Missing, unexpected and mis-shaped tensors, all in one message, under the names that the file has or should have for
/// them. What is unexpected is let pass where this is not `strict`.
pub fn check(opened: &Named, config: &Config, strict: bool) -> anyhow::Result<()> {
    const SHOWN: usize = 12;
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    for spec in config.tensors() {
        let written = opened.sources.get(&spec.name).unwrap_or(&spec.name);
        let part = match *written == spec.name {
            true => String::new(),
            false => format!(" (the model's {})", spec.name),
        };
        match opened.checkpoint.find(&spec.name) {
            Some(found) if found.shape == spec.shape => {}
            Some(found) => misshapen.push(format!(
                "`{written}`{part} is {:?}, not {:?}",
                found.shape, spec.shape
            )),
            None => {
                let others = opened.checkpoint.others();
                let other = others.iter().find(|other| other.name == *written);
                let why = match other {
                    Some(other) => format!(" (what is there {})", other.reason),
                    None => nearest(written, opened),
                };
                missing.push(format!("`{written}` {:?}{part}{why}", spec.shape));
            }
        }
    }
    let unexpected = opened.unexpected.iter();
    let unexpected = unexpected.map(|(name, shape)| format!("`{name}` {shape:?}"));
    let unexpected = unexpected.filter(|_| strict).collect();
    let lists: [(&str, Vec<String>); 3] = [
        ("missing", missing),
        ("of another shape", misshapen),
        ("unexpected", unexpected),
    ];
    let mut message = String::new();
    for (what, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
        let _ = write!(
            message,
            "\n  {what}: {}",
            list[..list.len().min(SHOWN)].join(", ")
        );
        if list.len() > SHOWN {
            let _ = write!(message, ", and {} more", list.len() - SHOWN);
        }
    }
    let only_unexpected = lists[0].1.is_empty() && lists[1].1.is_empty();
    let advice = match only_unexpected {
        true => "\n  --strict=false skips what is unexpected",
        false => "",
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

/// The unexpected tensor that is named most like a missing one.
fn nearest(missing: &str, opened: &Named) -> String {
    const ALIKE: f64 = 0.75;
    let likeness = |name: &str| strsim::normalized_levenshtein(missing, name);
    let unexpected = opened.unexpected.iter();
    let best = unexpected.max_by(|(a, _), (b, _)| likeness(a).total_cmp(&likeness(b)));
    match best.filter(|(name, _)| likeness(name) >= ALIKE) {
        Some((name, shape)) => format!(" (there is `{name}` {shape:?})"),
        None => String::new(),
    }
}

//! Reads off a user's checkpoint what model it is of, and says what is wrong with it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use checkpoint::{Dtype, TensorRange, Unreadable};
use gpt2::{Activation, Config, Size, Variant};
use lab::{Named, Tables};

use super::configuration::{self, Said, Told};

/// The model that a checkpoint is of: its dimensions by the shapes of its tensors, and by what is told of it the rest, such as the
/// heads, which no tensor shows. What a person gives as `--size` is a whole description, and must agree.
pub fn config_of(
    opened: &Named,
    given: Option<Size>,
    told: anyhow::Result<Option<Told>>,
    ignored: &[String],
) -> anyhow::Result<Config> {
    let path = opened.checkpoint.path().display();
    let shown = shown(opened)?;
    let metadata = opened.checkpoint.metadata();
    let Some(given) = given.map(Size::config) else {
        return match told? {
            Some(told) if told.heads.is_some() => {
                check_activation(opened, &told, ignored)?;
                let mut config = told.complete(shown).map_err(anyhow::Error::msg)?;
                config.variant.is_tied = is_tied(opened, told.is_tied, &told.by)?;
                Ok(config)
            }
            Some(told) => bail!(
                "{}: does not say how many heads the model has: {}",
                told.by,
                heads_offered(shown, configuration::heads(metadata))
            ),
            None => bail!(
                "{path}: {}",
                heads_wanted(shown, configuration::heads(metadata))
            ),
        };
    };
    let told = told?;
    let activation = opened.variant.activation;
    ensure!(
        told.is_some()
            || activation == Activation::default()
            || given.variant.activation != Activation::default()
            || ignored.iter().any(|name| name == "activation"),
        "{path}: its names are those of nanoGPT, which computes another activation than GPT-2: add -{} to --size; where it is of \
         minGPT, or has GELU's tanh approximation otherwise, say so with --ignore-config activation",
        activation.word()
    );
    let mut stated = given;
    let said = stated.variant.is_tied.then_some((true, "-tied"));
    stated.variant.is_tied = is_tied(opened, said, "--size")?;
    match told {
        None => {}
        Some(told) => {
            check_activation(opened, &told, ignored)?;
            let config = told.complete(shown).map_err(anyhow::Error::msg)?;
            let mut config = Config {
                heads: if told.heads.is_some() {
                    config.heads
                } else {
                    stated.heads
                },
                ..config
            };
            config.variant.is_tied = is_tied(opened, told.is_tied, &told.by)?;
            stated.variant.is_tied = config.variant.is_tied;
            ensure!(
                config == stated,
                "{path}: is a GPT-2 of size {} by {}, not {}",
                Size::of(config),
                told.by,
                Size::of(stated)
            );
        }
    }
    // What tensors show beyond doubt; fewer layers than are stated are missing tensors, which are named where they are looked for.
    let seen = Config {
        heads: stated.heads,
        layers: shown.layers.max(stated.layers),
        variant: Variant {
            inner: shown.variant.inner,
            biases: shown.variant.biases,
            ..stated.variant
        },
        ..shown
    }
    .normal();
    ensure!(
        seen == stated,
        "{path}: is a GPT-2 of size {}, not {}",
        Size::of(seen),
        Size::of(stated)
    );
    Ok(stated)
}

/// What the tensors show, with what goes without saying for the layout; without heads.
fn shown(opened: &Named) -> anyhow::Result<Config> {
    let checkpoint = &opened.checkpoint;
    let path = checkpoint.path().display();
    let matrix = |name: &str| -> anyhow::Result<[usize; 2]> {
        let written = opened.sources.get(name).map_or(name, |source| &**source);
        let why = match opened.other(name) {
            Some(other) => format!("its `{written}` {}", other.reason),
            None => format!("holds no tensor `{written}`: this is no GPT-2"),
        };
        let tensor = checkpoint
            .find(name)
            .with_context(|| format!("{path}: {why}"))?;
        tensor.shape[..]
            .try_into()
            .map_err(|_| anyhow!("{path}: `{written}` is no matrix, but {:?}", tensor.shape))
    };
    let layers = opened.sources.keys().filter_map(|name| {
        let layer = name.strip_prefix("trf_blocks.")?.split('.').next()?;
        layer.parse::<usize>().ok()
    });
    let layers = layers.max().map_or(0, |last| last + 1);
    let unexpected = opened.unexpected.iter().take(3);
    let unexpected: Vec<String> = unexpected.map(|(name, _)| format!("`{name}`")).collect();
    let [vocabulary, embedding] = matrix("tok_emb.weight")?;
    let [context, _] = matrix("pos_emb.weight")?;
    ensure!(
        layers > 0,
        "{path}: of its tensors none is of a layer as the layout `{}` names them (unknown are {}, …): describe yours in a \
         layout file (--layout)",
        opened.layout,
        unexpected.join(", ")
    );
    // What is there and cannot be read is the model's all the same.
    let has = |name: &str| checkpoint.find(name).is_some() || opened.other(name).is_some();
    // Of any layer: one that lacks it is missing it.
    let any_has = |name: &str| (0..layers).any(|layer| has(&format!("trf_blocks.{layer}.{name}")));
    let inner = matrix("trf_blocks.0.ff.layers.0.weight").map(|[inner, _]| inner);
    let variant = Variant {
        inner: inner.ok(),
        biases: any_has("norm1.shift") || any_has("ff.layers.0.bias"),
        is_tied: opened.tables() == Tables::One,
        ..opened.variant
    };
    Ok(Config {
        vocabulary,
        context,
        embedding,
        layers,
        heads: 0,
        qkv_bias: any_has("att.W_query.bias"),
        variant,
    }
    .normal())
}

/// That what goes without saying in a `config.json` is not another activation than what goes without saying for the tensors' names.
fn check_activation(opened: &Named, told: &Told, ignored: &[String]) -> anyhow::Result<()> {
    let own = opened.variant.activation;
    let Some((activation, name)) = told.activation else {
        return Ok(());
    };
    ensure!(
        activation == own
            || own == Activation::default()
            || !told.defaults.contains(&name)
            || ignored.iter().any(|name| name == "activation"),
        "{}: does not say `{name}`, for which transformers takes `gelu_new`, and the tensors are named as nanoGPT's, which computes \
         `{}`: say which of the two in it; or with --ignore-config activation that it is `gelu_new`",
        told.by,
        own.word()
    );
    Ok(())
}

/// A size with heads to choose from, and what the model may be beside GPT-2.
fn heads_offered(shown: Config, beside: Option<(&str, usize)>) -> String {
    const PUBLISHED: usize = 64;
    let of_heads = |heads| Size::of(Config { heads, ..shown });
    let example = match (beside, shown.embedding.is_multiple_of(PUBLISHED)) {
        (Some((name, heads)), _) => format!(
            "its `{name}` is {heads}: if that is of this model, give --size {}",
            of_heads(heads)
        ),
        (None, true) => format!(
            "if they are {PUBLISHED} wide, as in the published GPT-2, give --size {}",
            of_heads(shown.embedding / PUBLISHED)
        ),
        (None, false) => format!("give --size {} with the right -h", of_heads(1)),
    };
    match shown.variant.activation == Activation::default() {
        true => example,
        false => format!(
            "{example} (-{} is what nanoGPT computes; minGPT has the same names, and so has build-nanogpt, whose `config` is a \
             GPTConfig: for them, leave that out and add --ignore-config activation)",
            shown.variant.activation.word()
        ),
    }
}

/// What is said where nothing tells the heads: `beside` the weights somebody may have left a word.
fn heads_wanted(shown: Config, beside: Option<(&str, usize)>) -> String {
    let offered = heads_offered(shown, beside);
    format!(
        "nothing tells how many heads the model has, neither its metadata nor a config.json beside it or one folder up: {offered}; \
         where it differs from GPT-2 otherwise, in its activation, its layer norms or its attention, --size must say that, too"
    )
}

/// Whether the output head is the token table, by the tables that are kept and by what somebody says of them. Where two are kept
/// and one is told of, they must be equal; where none is kept for the head, somebody must say that there is one.
fn is_tied(opened: &Named, said: Said<bool>, by: &str) -> anyhow::Result<bool> {
    let tables = opened.tables();
    let Some((is_tied, name)) = said else {
        return Ok(tables == Tables::One);
    };
    let find = |name: &str| opened.checkpoint.find(name);
    let (tokens, head) = (
        opened.name_in_file("tok_emb.weight"),
        opened.name_in_file("out_head.weight"),
    );
    match (is_tied, tables) {
        // A head that is there and cannot be read is named with all that is missing. One that an index lists and no file has was
        // the same table when it was saved.
        (true, Tables::NoHead) => Ok(match opened.other("out_head.weight") {
            Some(other) => matches!(other.reason, Unreadable::Missing { .. }),
            None => true,
        }),
        (true, Tables::One) => Ok(true),
        // A head that is not there is named with all that is missing.
        (false, Tables::Two | Tables::NoHead) => Ok(false),
        // Two names of one storage.
        (false, Tables::One) if tokens != head => Ok(true),
        (false, Tables::One) => bail!(
            "{by}: `{name}` is false, and the checkpoint has one table, `{tokens}`, for the tokens and the output head",
        ),
        (true, Tables::Two) => {
            let [tokens_at, head_at] = ["tok_emb.weight", "out_head.weight"].map(find);
            let Some((tokens_at, head_at)) = tokens_at.zip(head_at) else {
                // What is missing is named where it is looked for.
                return Ok(false);
            };
            let is_equal = tokens_at.shape == head_at.shape
                && tokens_at.dtype == head_at.dtype
                && tokens_at.digest()? == head_at.digest()?;
            ensure!(
                is_equal || by != "--size",
                "--size says `{name}`, and the checkpoint's `{tokens}` and `{head}` differ"
            );
            ensure!(
                is_equal,
                "{by}: `{name}` is true, and the checkpoint's `{tokens}` and `{head}` differ: with --ignore-config {name} they are \
                 taken as they are"
            );
            Ok(true)
        }
    }
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

/// The dtype that all of them have; or the one that they are cast to. Names are those of the file.
pub fn dtype_of(
    file: &Path,
    opened: &Named,
    tensors: &[&TensorRange],
    cast: Option<Dtype>,
) -> anyhow::Result<Dtype> {
    let written = |tensor: &TensorRange| match opened.sources.get(&tensor.name) {
        Some(written) => written.clone(),
        None => tensor.name.clone(),
    };
    let first = tensors
        .first()
        .with_context(|| format!("{}: holds no tensors", file.display()))?;
    let mut others = tensors.iter();
    let unknown = tensors
        .iter()
        .find(|tensor| !Dtype::ALL.contains(&tensor.dtype));
    if let Some(unknown) = unknown {
        bail!(
            "{}: `{}` is {}: f32, f16 or bf16 can be loaded",
            file.display(),
            written(unknown),
            unknown.dtype
        );
    }
    if let Some(cast) = cast {
        return Ok(cast);
    }
    if let Some(other) = others.find(|tensor| tensor.dtype != first.dtype) {
        bail!(
            "{}: mixes dtypes: `{}` is {}, `{}` is {}: with --cast f32 (or f16, bf16) all are cast to one",
            file.display(),
            written(first),
            first.dtype,
            written(other),
            other.dtype
        );
    }
    Ok(first.dtype)
}

/// Missing, unexpected and mis-shaped tensors, all in one message, under the names that the file has or should have for
/// them. What is unexpected is let pass where this is not `strict`.
pub fn check(opened: &Named, config: &Config, strict: bool) -> anyhow::Result<()> {
    const SHOWN: usize = 12;
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    for spec in config.tensors() {
        let written = &opened.name_in_file(&spec.name);
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
                let why = match opened.other(&spec.name) {
                    Some(other) => format!(" (what is there {})", other.reason),
                    None => nearest(written, opened),
                };
                missing.push(format!("`{written}` {:?}{part}{why}", spec.shape));
            }
        }
    }
    let unexpected = opened.unexpected.iter();
    let unexpected = unexpected.map(|(name, shape)| format!("`{name}` {shape:?}"));
    let unreadable = opened.unreadable.iter();
    let unreadable = unreadable.map(|other| format!("`{}`, which {}", other.name, other.reason));
    let unexpected = unexpected.chain(unreadable).filter(|_| strict).collect();
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

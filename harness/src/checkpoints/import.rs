//! Reads off a user's checkpoint what model it is of.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use checkpoint::{Dtype, TensorRange, Unreadable, quoted};
use gpt2::layout::{Named, Tables};
use gpt2::{Activation, Config, MOST_LAYERS, Size, Variant};

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
            Some(told) => {
                check_activation(opened, &told, ignored)?;
                let mut config = told.complete(shown).map_err(anyhow::Error::msg)?;
                config.variant.is_tied = is_tied(opened, told.is_tied, &told.by)?;
                bail!(
                    "{}: does not say how many heads the model has: {}",
                    told.by,
                    size_to_give(config, configuration::heads(metadata))
                )
            }
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
    ensure!(
        layers <= MOST_LAYERS,
        "{path}: has tensors of {layers} layers, and no model has more than {MOST_LAYERS}"
    );
    // What is there and cannot be read is the model's all the same.
    let has = |name: &str| checkpoint.find(name).is_some() || opened.other(name).is_some();
    // Of any layer: one that lacks it is missing it.
    const BIASES: [&str; 5] = [
        "norm1.shift",
        "norm2.shift",
        "att.out_proj.bias",
        "ff.layers.0.bias",
        "ff.layers.2.bias",
    ];
    let any_has = |name: &str| (0..layers).any(|layer| has(&format!("trf_blocks.{layer}.{name}")));
    let inner = matrix("trf_blocks.0.ff.layers.0.weight").map(|[inner, _]| inner);
    let variant = Variant {
        inner: inner.ok(),
        biases: BIASES.iter().any(|name| any_has(name)) || has("final_norm.shift"),
        is_tied: opened.tables() == Tables::One,
        ..opened.variant
    };
    Ok(Config {
        vocabulary,
        context,
        embedding,
        layers,
        heads: 0,
        qkv_bias: ["query", "key", "value"]
            .iter()
            .any(|which| any_has(&format!("att.W_{which}.bias"))),
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

/// The size that a person may give where nothing tells the heads: `beside` the weights somebody may have left a word.
fn size_to_give(shown: Config, beside: Option<(&str, usize)>) -> String {
    const PUBLISHED: usize = 64;
    let of_heads = |heads| Size::of(Config { heads, ..shown });
    match (beside, shown.embedding.is_multiple_of(PUBLISHED)) {
        (Some((name, heads)), _) => format!(
            "its `{name}` is {heads}: if that is of this model, give --size {}",
            of_heads(heads)
        ),
        (None, true) => format!(
            "if they are {PUBLISHED} wide, as in the published GPT-2, give --size {}",
            of_heads(shown.embedding / PUBLISHED)
        ),
        (None, false) => format!("give --size {} with the right -h", of_heads(1)),
    }
}

/// What is said where nothing tells the heads.
fn heads_wanted(shown: Config, beside: Option<(&str, usize)>) -> String {
    let example = size_to_give(shown, beside);
    let example = match shown.variant.activation == Activation::default() {
        true => example,
        false => format!(
            "{example} (-{} is what nanoGPT computes; minGPT has the same names, and so has build-nanogpt, whose `config` is a \
             GPTConfig: for them, leave that out and add --ignore-config activation)",
            shown.variant.activation.word()
        ),
    };
    format!(
        "nothing tells how many heads the model has, neither its metadata nor a config.json beside it or one folder up: {example}; \
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
                "{by}: `{name}` is true, and the checkpoint's `{tokens}` and `{head}` differ: with {} they are taken as they are",
                as_they_are(opened, name)
            );
            Ok(true)
        }
    }
}

/// The options with which two tables are taken as they are, where `name` says that they are one.
fn as_they_are(opened: &Named, name: &str) -> String {
    if name != configuration::NANOGPTS_HEAD {
        return format!("--ignore-config {name}");
    }
    let heads = configuration::heads(opened.checkpoint.metadata());
    let size = shown(opened).ok().zip(heads).map(|(shown, (_, heads))| {
        let size = Size::of(Config { heads, ..shown });
        size.to_string()
    });
    let size = size.unwrap_or_else(|| "…".to_owned());
    format!("--ignore-config model_args and --size {size}")
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
        Some(written) => quoted(written),
        None => quoted(&tensor.name),
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
            "{}: {} is {}: f32, f16 or bf16 can be loaded",
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
            "{}: mixes dtypes: {} is {}, {} is {}: with --cast f32 (or f16, bf16) all are cast to one",
            file.display(),
            written(first),
            first.dtype,
            written(other),
            other.dtype
        );
    }
    Ok(first.dtype)
}

/// That it is no checkpoint that was quantised here: it is made of a whole one, by whoever reads it.
pub fn refuse_quantised(opened: &Named) -> anyhow::Result<()> {
    let unexpected = opened.unexpected.iter();
    let unexpected: HashSet<&str> = unexpected.map(|(name, _)| &**name).collect();
    let mut tensors = opened.checkpoint.tensors().iter();
    let is_quantised = tensors.any(|tensor| {
        let written = opened.name_in_file(&tensor.name);
        let scales = lab::quantise::scales_name(&written);
        tensor.dtype == Dtype::I8 && unexpected.contains(&*scales)
    });
    ensure!(
        !is_quantised,
        "{}: is a quantised checkpoint of this program's (i8, with `.scales`), which the experiment prequantized alone reads: give \
         the checkpoint that it was made of, with --experiment prequantized, and it is made and read",
        opened.checkpoint.path().display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use checkpoint::{Format, TensorMeta};
    use gpt2::layout::Layouts;

    use super::*;

    /// A model of nanoGPT's with a head of its own, that says how many heads it has.
    fn untied(folder: &Path) -> Named {
        let metas = [
            ("transformer.wte.weight", vec![5, 4]),
            ("transformer.wpe.weight", vec![6, 4]),
            ("transformer.h.0.attn.c_attn.weight", vec![12, 4]),
            ("transformer.h.0.mlp.c_fc.weight", vec![16, 4]),
            ("transformer.h.0.mlp.c_proj.weight", vec![4, 16]),
            ("lm_head.weight", vec![5, 4]),
        ]
        .map(|(name, shape)| TensorMeta {
            name: name.to_owned(),
            dtype: Dtype::F32,
            shape,
        });
        let path = folder.join("model.safetensors");
        let about = BTreeMap::from([("model_args.n_head".to_owned(), "2".to_owned())]);
        let mut fill =
            |meta: &TensorMeta, sink: &mut dyn FnMut(&[u8]) -> Result<(), checkpoint::Error>| {
                sink(&vec![meta.name.len() as u8; meta.bytes() as usize])
            };
        checkpoint::write_with_metadata(&path, Format::Safetensors, &metas, &about, &mut fill)
            .unwrap();
        let opened = Layouts::built_in().open(&path).unwrap();
        assert_eq!(opened.layout, "nanogpt");
        opened
    }

    #[test]
    fn the_options_that_are_advised_for_a_head_of_its_own_are_options() {
        let folder = tempfile::tempdir().unwrap();
        let opened = untied(folder.path());
        let said = |name| is_tied(&opened, Some((true, name)), "it").unwrap_err();
        let error = said(configuration::NANOGPTS_HEAD).to_string();
        let expected = "with --ignore-config model_args and --size v5-c6-e4-l1-h2-";
        assert!(
            error.contains(expected) && error.contains("-gelu"),
            "{error}"
        );
        let error = said("tie_word_embeddings").to_string();
        let expected = "with --ignore-config tie_word_embeddings they";
        assert!(error.contains(expected), "{error}");
    }

    /// A model of the book's, of which some tensors are left out.
    fn without(folder: &Path, size: &str, left_out: impl Fn(&str) -> bool) -> Named {
        let config = size.parse::<Size>().unwrap().config();
        let metas = crate::checkpoints::metas(&config, Dtype::F32);
        let metas: Vec<TensorMeta> = metas
            .into_iter()
            .filter(|meta| !left_out(&meta.name))
            .collect();
        let path = folder.join("model.safetensors");
        let mut fill =
            |meta: &TensorMeta, sink: &mut dyn FnMut(&[u8]) -> Result<(), checkpoint::Error>| {
                sink(&vec![1; meta.bytes() as usize])
            };
        checkpoint::write(&path, Format::Safetensors, &metas, &mut fill).unwrap();
        Layouts::built_in().open(&path).unwrap()
    }

    #[test]
    fn biases_that_some_layers_or_projections_have_are_the_models_and_others_are_missing() {
        let size = "v9-c8-e4-l2-h2";
        let given: Size = size.parse().unwrap();
        for (left_out, missing) in [
            ("W_query.bias", "W_query.bias"),
            ("W_key.bias", "W_key.bias"),
            (
                "trf_blocks.0.att.W_value.bias",
                "trf_blocks.0.att.W_value.bias",
            ),
            ("norm1.shift", "norm1.shift"),
            ("ff.layers.0.bias", "ff.layers.0.bias"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let opened = without(folder.path(), size, |name| name.ends_with(left_out));
            let config = config_of(&opened, Some(given), Ok(None), &[]).unwrap();
            let error = super::super::mismatch::check(&opened, &config, false).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains("missing") && error.contains(missing),
                "{error}"
            );
        }
        // What a model of the size has no place for is no part of it, and is told.
        let folder = tempfile::tempdir().unwrap();
        let opened = without(folder.path(), size, |_| false);
        let bare = "v9-c8-e4-l2-h2-nobias".parse::<Size>().unwrap().config();
        let error = super::super::mismatch::check(&opened, &bare, false).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("unexpected") && error.contains("W_key.bias"),
            "{error}"
        );
    }

    #[test]
    fn who_does_not_say_the_heads_is_told_with_the_size_to_give() {
        let folder = tempfile::tempdir().unwrap();
        let opened = untied(folder.path());
        let told = Told {
            by: "it".to_owned(),
            ..Told::default()
        };
        let error = config_of(&opened, None, Ok(Some(told)), &[]).unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with("it: does not say how many heads")
                && error.contains("--size v5-c6-e4-l1-h2"),
            "{error}"
        );
    }
}

//! Reads off a user's checkpoint what model it is of, and says what is wrong with it.

use anyhow::{Context, bail, ensure};
use checkpoint::Checkpoint;
use gpt2::{Config, Size};

/// Reads the dimensions off the shapes. The heads cannot be seen there: every published GPT-2 has heads 64
/// wide, and for others the size must be given.
pub fn config_of(checkpoint: &Checkpoint, given: Option<Size>) -> anyhow::Result<Config> {
    let find = |name: &str| {
        let found = checkpoint
            .tensors()
            .iter()
            .find(|tensor| tensor.name == name);
        found.with_context(|| {
            format!(
                "{}: holds no tensor `{name}`: this is no state dict of the book's GPT-2",
                checkpoint.path().display()
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
    let layers = checkpoint.tensors().iter().filter_map(|tensor| {
        let layer = tensor.name.strip_prefix("trf_blocks.")?.split('.').next()?;
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
    match given.map(Size::config) {
        Some(given)
            if Config {
                heads: config.heads,
                ..given
            } == config =>
        {
            config.heads = given.heads
        }
        Some(given) => {
            config.heads = given.heads;
            bail!(
                "{}: is a GPT-2 of size {}, not {}",
                checkpoint.path().display(),
                Size::of(config),
                Size::of(given)
            );
        }
        None if config.embedding.is_multiple_of(HEAD_WIDTH) => {
            config.heads = config.embedding / HEAD_WIDTH
        }
        None => {
            config.heads = 1;
            bail!(
                "{}: its number of heads cannot be read off it: give --size {} with the right -h",
                checkpoint.path().display(),
                Size::of(config)
            );
        }
    }
    Ok(config)
}

/// Missing, unexpected and mis-shaped tensors, all in one message.
pub fn check_tensors(checkpoint: &Checkpoint, config: &Config) -> anyhow::Result<()> {
    let expected = config.tensors();
    let wrong = expected.iter().filter_map(|spec| {
        checkpoint.tensor(&spec.name, &spec.shape).err().map(|_| {
            let found = checkpoint
                .tensors()
                .iter()
                .find(|tensor| tensor.name == spec.name);
            match found {
                Some(found) => {
                    format!("`{}` is {:?}, not {:?}", spec.name, found.shape, spec.shape)
                }
                None => format!("`{}` is missing", spec.name),
            }
        })
    });
    let unexpected = checkpoint.tensors().iter().filter_map(|tensor| {
        let is_known = expected.iter().any(|spec| spec.name == tensor.name);
        (!is_known).then(|| format!("`{}` is unexpected", tensor.name))
    });
    let wrong: Vec<String> = wrong.chain(unexpected).collect();
    const SHOWN: usize = 8;
    let more = wrong.len().saturating_sub(SHOWN);
    let more = if more > 0 {
        format!(", and {more} more")
    } else {
        String::new()
    };
    ensure!(
        wrong.is_empty(),
        "{}: is no state dict of the book's GPT-2: {}{more}",
        checkpoint.path().display(),
        wrong[..wrong.len().min(SHOWN)].join(", ")
    );
    Ok(())
}

//! A checkpoint in the names and the layout of transformers, in a folder that `GPT2LMHeadModel.from_pretrained` opens.

use std::path::{Path, PathBuf};

use anyhow::Context;
use checkpoint::{Format, PARTIAL_PREFIX, TensorMeta};
use gpt2::Config;
use gpt2::layout::{FileTensor, Layouts, write_tensors};

use super::{Ready, Store, configuration, hold, made, metas, progress, remove_partial};
use crate::exit::Ended;
use crate::interrupt;

/// The formats that transformers reads.
pub const FORMATS: [Format; 4] = [
    Format::Safetensors,
    Format::Pth,
    Format::Sharded,
    Format::ShardedPth,
];

/// The folder that it is written to.
pub fn folder(ready: &Ready, format: Format) -> PathBuf {
    ready.folder.join(name(format))
}

/// What that folder is called.
pub fn name(format: Format) -> String {
    match format {
        Format::Safetensors => "hugging-face".to_owned(),
        other => format!("hugging-face-{other}"),
    }
}

/// Bytes on disk that it takes.
pub fn bytes(ready: &Ready, format: Format) -> anyhow::Result<u64> {
    Ok(format.disk_bytes(&in_the_file(&tensors(ready)?)))
}

/// Writes it. What a user put into the folder, such as a tokenizer, stays there.
pub fn write(store: &Store, ready: &Ready, format: Format) -> anyhow::Result<PathBuf> {
    if ready.is_of_a_copy() {
        store.prepare(ready, Format::Safetensors)?;
    }
    let (path, reading) = ready.weights(Format::Safetensors);
    let mut source = Layouts::of(&reading)?.open(&path)?.checkpoint;
    let tensors = tensors(ready)?;
    let to = folder(ready, format);
    let cannot = || format!("{}: cannot be written", to.display());
    let _held = hold(&ready.folder)?;
    remove_partial(&ready.folder);
    let partial = tempfile::Builder::new()
        .prefix(PARTIAL_PREFIX)
        .tempdir_in(&ready.folder)
        .with_context(cannot)?;
    let unfinished = partial.path().join("folder");
    let file = file_in(&unfinished, format);
    let total = in_the_file(&tensors).iter().map(TensorMeta::bytes).sum();
    let bar = progress("preparing", &to, total);
    let config = as_transformers(ready.size.config());
    let metadata = configuration::metadata(&config);
    let written = write_tensors(
        &file,
        format,
        &tensors,
        &metadata,
        &mut source,
        &mut |bytes| {
            bar.inc(bytes);
            match interrupt::requested() {
                true => Err(lab::Error::Stopped),
                false => Ok(()),
            }
        },
    );
    bar.finish_and_clear();
    match written {
        Err(lab::Error::Stopped) => return Err(Ended::Stopped.into()),
        written => written?,
    };
    configuration::write(&unfinished, &config)?;
    made::install(&unfinished, &to, &config)?;
    Ok(to)
}

/// The model in transformers' words, in which every linear has a bias.
fn as_transformers(mut config: Config) -> Config {
    config.qkv_bias = true;
    config.variant.biases = true;
    config
}

/// What `write_tensors` is to write: a file of the folder, or all of them.
fn file_in(folder: &Path, format: Format) -> PathBuf {
    match format {
        Format::Safetensors => folder.join("model.safetensors"),
        Format::Pth => folder.join("pytorch_model.bin"),
        _ => folder.to_owned(),
    }
}

fn tensors(ready: &Ready) -> anyhow::Result<Vec<FileTensor>> {
    Ok(Layouts::hugging_face(&metas(
        &ready.size.config(),
        ready.dtype,
    ))?)
}

fn in_the_file(tensors: &[FileTensor]) -> Vec<TensorMeta> {
    tensors.iter().map(|tensor| tensor.meta.clone()).collect()
}

/// That transformers reads these formats.
pub fn check(formats: &[Format]) -> anyhow::Result<()> {
    let other = formats.iter().find(|format| !FORMATS.contains(format));
    if let Some(other) = other {
        let known = FORMATS.map(Format::name).join(", ");
        let message =
            format!("--as hugging-face: transformers reads no {other}: use one of {known}");
        return Err(Ended::Usage(message).into());
    }
    Ok(())
}

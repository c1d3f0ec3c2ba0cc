//! Checkpoints that are made of another: quantised, or in a format that Burn writes of a whole model. In a process of its own
//! where a model is held for it, which is not the harness's to keep.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use burn::module::Module;
use burn::record::{FullPrecisionSettings, NamedMpkFileRecorder};
use checkpoint::{Checkpoint, Dtype, Error, Format, TensorMeta};
use gpt2::layout::Layouts;
use gpt2::{Config, Size};
use lab::convert::extend_as_f32;
use lab::quantise::{Quantised, block_elements, scales_name};

use crate::subprocess;

/// As long as the largest size may take on a slow disk.
const LIMIT: Duration = Duration::from_secs(3600);

/// How much is quantised at once.
const PIECE_BYTES: usize = 1 << 20;

/// Makes `to`, of this format, of the plain checkpoint `from`: in another process.
pub fn in_a_process(from: &Path, size: Size, format: Format, to: &Path) -> anyhow::Result<()> {
    let mut command = subprocess::own()?;
    command
        .arg("derive")
        .arg("--checkpoint")
        .arg(from)
        .args(["--size", &size.to_string(), "--format", format.name()])
        .arg("--to")
        .arg(to);
    let answer = subprocess::ask(&mut command, LIMIT)?;
    ensure!(
        answer.status.success(),
        "{}: could not be made: {}",
        to.display(),
        answer.errors.trim()
    );
    Ok(())
}

/// The same, here. What bears the name is whole: it is written under another and renamed.
pub fn derive(from: &Path, config: &Config, format: Format, to: &Path) -> anyhow::Result<()> {
    match format {
        Format::Int8 => quantise(from, config, to),
        Format::Burnpack => burnpack(from, config, to),
        Format::NamedMpk => saved(to, |path| {
            let model = lab::read_model(from, config, &Layouts::built_in())?;
            let recorder = NamedMpkFileRecorder::<FullPrecisionSettings>::new();
            let saved = model.save_file(path, &recorder);
            saved.map_err(|error| anyhow::anyhow!("burn: {error:?}"))
        }),
        plain => bail!("{plain} is written as it is, and not made of another format"),
    }
}

/// Has `save` write beside `to`, and gives it the name.
fn saved(to: &Path, save: impl FnOnce(PathBuf) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    let partial = tempfile::Builder::new()
        .prefix(checkpoint::PARTIAL_PREFIX)
        .tempdir_in(folder)
        .with_context(|| format!("{}: cannot be written", folder.display()))?;
    let name = to.file_name().context("a file has a name")?;
    let unfinished = partial.path().join(name);
    save(unfinished.clone())?;
    std::fs::File::open(&unfinished)?.sync_all()?;
    std::fs::rename(&unfinished, to).with_context(|| format!("{}: cannot be written", to.display()))
}

/// The same tensors under the names that Burn's stores look for, streaming.
fn burnpack(from: &Path, config: &Config, to: &Path) -> anyhow::Result<()> {
    let source = Checkpoint::open(from)?;
    let layouts = Layouts::built_in();
    let mut sources = BTreeMap::new();
    let mut metas = Vec::new();
    for spec in config.tensors() {
        let tensor = source.tensor(&spec.name, &spec.shape)?;
        let name = layouts.name_in("burn", &spec.name);
        let name = name.with_context(|| format!("Burn has no name for `{}`", spec.name))?;
        metas.push(TensorMeta {
            name: name.clone(),
            dtype: tensor.dtype,
            shape: spec.shape,
        });
        sources.insert(name, tensor);
    }
    checkpoint::write(to, Format::Burnpack, &metas, &mut |meta, sink| {
        sources[&meta.name].read_in_pieces(PIECE_BYTES, sink)
    })?;
    Ok(())
}

/// Every matrix as 8-bit integers and their scales, streaming: memory is bounded by a piece.
fn quantise(from: &Path, config: &Config, to: &Path) -> anyhow::Result<()> {
    let source = Checkpoint::open(from)?;
    let mut metas = Vec::new();
    // Of which matrix something is the values or the scales; a vector is its own.
    let mut made_of = HashMap::new();
    for spec in config.tensors() {
        made_of.insert(spec.name.clone(), spec.clone());
        let (name, shape) = (spec.name.clone(), spec.shape.clone());
        let [rows, columns] = shape[..] else {
            metas.push(TensorMeta {
                name,
                dtype: Dtype::F32,
                shape,
            });
            continue;
        };
        let scales = scales_name(&name);
        made_of.insert(scales.clone(), spec);
        metas.push(TensorMeta {
            name,
            dtype: Dtype::I8,
            shape,
        });
        metas.push(TensorMeta {
            name: scales,
            dtype: Dtype::F32,
            shape: vec![rows, columns / block_elements(columns)],
        });
    }
    checkpoint::write(to, Format::Int8, &metas, &mut |meta, sink| {
        let is_values = meta.dtype == Dtype::I8;
        let spec = &made_of[&meta.name];
        let tensor = source.tensor(&spec.name, &spec.shape)?;
        let mut floats = Vec::new();
        let [_, columns] = spec.shape[..] else {
            return tensor.read_in_pieces(PIECE_BYTES, |piece| {
                floats.clear();
                extend_as_f32(&mut floats, tensor.dtype, piece);
                sink(bytemuck::cast_slice(&floats))
            });
        };
        let row_bytes = tensor.row_bytes() as usize;
        let rows_at_once = (PIECE_BYTES / row_bytes).max(1);
        tensor.read_in_pieces(rows_at_once * row_bytes, |piece| {
            floats.clear();
            extend_as_f32(&mut floats, tensor.dtype, piece);
            let mut matrix = Quantised::default();
            matrix.extend(&floats, block_elements(columns));
            match is_values {
                true => sink(bytemuck::cast_slice(&matrix.values)),
                false => sink(bytemuck::cast_slice(&matrix.scales)),
            }
        })
    })
    .map_err(|error: Error| anyhow::Error::from(error))?;
    Ok(())
}

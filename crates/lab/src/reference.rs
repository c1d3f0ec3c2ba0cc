//! Reference logits: what a loaded model must compute.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use checkpoint::{Checkpoint, Dtype, Format, TensorMeta, write};
use gpt2::{Config, Gpt2};
use half::{bf16, f16};

use crate::{Error, Host, Platform};

/// The tokens of the study's forward pass.
pub const REFERENCE_TOKENS: [i32; 3] = [1, 2, 3];
const NAME: &str = "logits";

/// How far logits may be from the reference, as the largest difference over the largest magnitude.
/// f32: summation order differs between backends. Half precision: eleven or eight significant bits.
pub fn logits_tolerance(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 1e-4,
        Dtype::F16 | Dtype::Bf16 => 2e-2,
    }
}

/// Computes the logits of a checkpoint for [`REFERENCE_TOKENS`] in f32 on the host, whatever the dtype
/// stored, and writes them to a safetensors file with one tensor, `logits` `[1, 3, vocabulary]`.
///
/// # Errors
///
/// If the checkpoint cannot be read, is no GPT-2 of these dimensions, or the file cannot be written.
pub fn write_logits(checkpoint: &Path, config: &Config, to: &Path) -> Result<(), Error> {
    let checkpoint = Checkpoint::open(checkpoint)?;
    let device = Default::default();
    let mut model = Gpt2::<Host>::lazy(config, u64::MAX, &device);
    for destination in model.tensors_mut(config) {
        let tensor = checkpoint.tensor(&destination.spec.name, &destination.spec.shape)?;
        let mut values: Vec<f32> = Vec::with_capacity(destination.spec.elements() as usize);
        tensor.read_in_pieces(1 << 20, |piece| {
            extend_as_f32(&mut values, tensor.dtype, piece);
            Ok::<_, Error>(())
        })?;
        let elements = values.len();
        let value = Tensor::from_data(TensorData::new(values, [elements]), &device);
        destination.assign(vec![value]);
    }
    let logits = Host::logits(&model, &REFERENCE_TOKENS, &device)?;
    save(&logits, to)
}

/// Writes logits as [`write_logits`] does.
pub(crate) fn save(logits: &[f32], to: &Path) -> Result<(), Error> {
    let rows = REFERENCE_TOKENS.len();
    let meta = TensorMeta {
        name: NAME.to_owned(),
        dtype: Dtype::F32,
        shape: vec![1, rows, logits.len() / rows],
    };
    let bytes = logits.iter().flat_map(|value| value.to_le_bytes());
    let bytes: Vec<u8> = bytes.collect();
    write(to, Format::Safetensors, &[meta], &mut |_, sink| {
        sink(&bytes)
    })?;
    Ok(())
}

/// Reads the tensor `logits` `[1, 3, vocabulary]` (or its f16 or bf16 likes) of a safetensors or `.pth` file.
///
/// # Errors
///
/// If the file cannot be read or holds no such tensor.
pub fn read_logits(path: &Path, vocabulary: usize) -> Result<Vec<f32>, Error> {
    let file = Checkpoint::open(path)?;
    let tensor = file.tensor(NAME, &[1, REFERENCE_TOKENS.len(), vocabulary])?;
    let mut values = Vec::new();
    tensor.read_in_pieces(1 << 20, |piece| {
        extend_as_f32(&mut values, tensor.dtype, piece);
        Ok::<_, Error>(())
    })?;
    Ok(values)
}

/// Appends little-endian elements of `dtype`.
pub(crate) fn extend_as_f32(values: &mut Vec<f32>, dtype: Dtype, bytes: &[u8]) {
    let halves = || bytes.as_chunks::<2>().0.iter().copied();
    match dtype {
        Dtype::F32 => {
            let words = bytes.as_chunks::<4>().0.iter();
            values.extend(words.map(|&word| f32::from_le_bytes(word)));
        }
        Dtype::F16 => values.extend(halves().map(|half| f16::from_le_bytes(half).to_f32())),
        Dtype::Bf16 => values.extend(halves().map(|half| bf16::from_le_bytes(half).to_f32())),
    }
}

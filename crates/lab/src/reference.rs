//! Reference logits: what a loaded model must compute.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use checkpoint::{Checkpoint, Dtype, Format, TensorMeta, write};
use gpt2::layout::Layouts;
use gpt2::{Config, Gpt2};

use crate::convert::extend_as_f32;
use crate::{Error, Host, Kept, Platform};

/// The tokens of the study's forward pass.
pub const REFERENCE_TOKENS: [i32; 3] = [1, 2, 3];
const NAME: &str = "logits";

/// How far logits may be from the reference, as the largest difference over the largest magnitude.
/// f32: summation order differs between backends; where the device rounds the factors of matrix products to TF32, they have
/// eleven significant bits (9e-4 for small on an H200). Half precision: eleven or eight significant bits, rounded in each of up to
/// 48 layers. Quantised: seven bits and a sign of each block's largest.
pub fn logits_tolerance(kept: Kept, stored: Dtype, is_in_tf32: bool) -> f64 {
    match (kept, kept.dtype(stored)) {
        (Kept::Quantised, _) => 5e-2,
        (_, Dtype::F32) if is_in_tf32 => 5e-3,
        (_, Dtype::F32) => 1e-4,
        (_, Dtype::F16) => 2e-2,
        (_, _) => 4e-2,
    }
}

/// The largest difference of logits from the reference, over the reference's largest magnitude.
///
/// # Errors
///
/// If there are not as many of them.
pub fn logits_error(computed: &[f32], reference: &[f32]) -> Result<f64, Error> {
    if computed.len() != reference.len() {
        let (computed, reference) = (computed.len(), reference.len());
        let reason = format!("{computed} logits, where the reference has {reference}");
        return Err(Error::Verification(reason));
    }
    let magnitude = reference
        .iter()
        .fold(0f32, |most, value| most.max(value.abs()));
    let pairs = computed.iter().zip(reference);
    // A maximum that keeps NaN, which `f32::max` would drop.
    let difference = pairs.fold(0f32, |most, (a, b)| {
        let difference = (a - b).abs();
        if difference > most || difference.is_nan() {
            difference
        } else {
            most
        }
    });
    Ok(f64::from(difference) / f64::from(magnitude.max(f32::MIN_POSITIVE)))
}

/// Whether logits are near enough.
///
/// # Errors
///
/// If they are not, with the numbers.
pub fn check_logits(error: f64, tolerance: f64) -> Result<(), Error> {
    match error <= tolerance {
        true => Ok(()),
        false => Err(Error::Verification(format!(
            "logits differ from the reference by {error:.2e} of its largest, over {tolerance:.0e}"
        ))),
    }
}

/// That a model of these dimensions can compute [`REFERENCE_TOKENS`].
///
/// # Errors
///
/// If its context is too short for them, or its vocabulary lacks one.
pub fn check_comparable(config: &Config) -> Result<(), Error> {
    let context = REFERENCE_TOKENS.len();
    let vocabulary = REFERENCE_TOKENS.map(|token| token as usize + 1);
    let vocabulary = vocabulary.into_iter().max().unwrap_or_default();
    match config.context >= context && config.vocabulary >= vocabulary {
        true => Ok(()),
        false => Err(Error::Setup(format!(
            "the model has a context of {} and a vocabulary of {}, and the comparison runs a forward on {REFERENCE_TOKENS:?}, which \
             needs a context of {context} and a vocabulary of {vocabulary}",
            config.context, config.vocabulary
        ))),
    }
}

/// Computes the logits of a checkpoint for [`REFERENCE_TOKENS`] in f32 on the host, whatever the dtype
/// stored, and writes them to a safetensors file with one tensor, `logits` `[1, 3, vocabulary]`.
///
/// # Errors
///
/// If the checkpoint cannot be read, is no GPT-2 of these dimensions, is too small to be compared, or the file cannot be written.
pub fn write_logits(
    checkpoint: &Path,
    layouts: &Layouts,
    config: &Config,
    to: &Path,
) -> Result<(), Error> {
    check_comparable(config)?;
    let checkpoint = layouts.open(checkpoint)?.checkpoint;
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
    let logits = Host::logits(&mut model, &REFERENCE_TOKENS, &device, &mut |_, _| Ok(()))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_pass_and_one_wrong_or_missing_one_fails() {
        let reference = [1.0, -2.0, 0.5];
        let check = |logits: &[f32]| check_logits(logits_error(logits, &reference)?, 1e-4);
        assert_eq!(logits_error(&reference, &reference).unwrap(), 0.0);
        assert!(check(&reference).is_ok());
        assert!(check(&[1.0, -2.0, 0.501]).is_err());
        assert!(check(&[1.0, f32::NAN, 0.5]).is_err());
        assert!(check(&[1.0, -2.0]).is_err());
    }
}

//! Verification: whether a run's numbers may be shown.

use std::collections::BTreeMap;

use checkpoint::{Checkpoint, Digest, Dtype, Hasher, TensorRange};
use gpt2::{Config, Gpt2, Initial, TensorMut};

use crate::convert::{extend_as_f32, extend_from_f32};
use crate::platform::BringLayer;
use crate::quantise::{block_elements, scales_name};
use crate::{Error, Platform};
use featherweight::change::scale_of;

/// Reads every parameter back, one at a time, and compares its digest with the checkpoint's.
pub(crate) fn digests<B: Platform>(
    model: &mut Gpt2<B>,
    config: &Config,
    expected: &BTreeMap<String, Digest>,
    bring: &mut BringLayer<'_, B>,
) -> Result<(), Error> {
    for_each_tensor(model, config, bring, |tensor| {
        let name = &tensor.spec.name;
        let expected = expected.get(name).ok_or_else(|| {
            Error::Verification(format!("the checkpoint's digests have no `{name}`"))
        })?;
        compare_digest(tensor, expected)
    })
}

/// Reads every parameter back and checks it against the distribution it was to be initialised from: that
/// it is there, finite, within bounds, and of the right mean and spread.
pub(crate) fn initial_weights<B: Platform>(
    model: &mut Gpt2<B>,
    config: &Config,
    dtype: Dtype,
    bring: &mut BringLayer<'_, B>,
) -> Result<(), Error> {
    for_each_tensor(model, config, bring, |tensor| {
        let mut moments = Moments::default();
        let mut values = Vec::new();
        for shard in &tensor.shards {
            B::read_back(shard.value(), &mut |piece| {
                // In small steps: the bytes of a whole parameter may come at once.
                for step in piece.chunks(1 << 20) {
                    values.clear();
                    extend_as_f32(&mut values, dtype, step);
                    values.iter().for_each(|&value| moments.add(value));
                }
            })?;
        }
        let elements = tensor.spec.elements();
        moments
            .check(tensor.spec.initial, elements)
            .map_err(|reason| {
                Error::Verification(format!("parameter `{}` {reason}", tensor.spec.name))
            })
    })
}

/// Reads every parameter back, and compares it with the checkpoint's elements, each rounded to `dtype`: to the bit.
pub(crate) fn casts<B: Platform>(
    model: &mut Gpt2<B>,
    config: &Config,
    checkpoint: &Checkpoint,
    dtype: Dtype,
    bring: &mut BringLayer<'_, B>,
) -> Result<(), Error> {
    for_each_tensor(model, config, bring, |tensor| {
        let source = checkpoint.tensor(&tensor.spec.name, &tensor.spec.shape)?;
        let mut expected = Hasher::default();
        let (mut floats, mut halves) = (Vec::new(), Vec::new());
        source.read_in_pieces(1 << 20, |piece| {
            floats.clear();
            halves.clear();
            extend_as_f32(&mut floats, source.dtype, piece);
            extend_from_f32(&mut halves, dtype, &floats);
            expected.update(&halves);
            Ok::<_, Error>(())
        })?;
        compare_digest(tensor, &expected.finish())
    })
}

/// Reads every parameter back, as floats, and compares it with the checkpoint's: matrices to half a step of the block
/// that an element is in (or, where the checkpoint is quantised itself, with what it stands for), vectors to the bit.
/// `dtype` is that of the floats. Whether the device `computes`: else the host makes floats of what lies there.
pub(crate) fn quantised<B: Platform>(
    model: &mut Gpt2<B>,
    config: &Config,
    checkpoint: &Checkpoint,
    dtype: Dtype,
    computes: bool,
    bring: &mut BringLayer<'_, B>,
) -> Result<(), Error> {
    for_each_tensor(model, config, bring, |tensor| {
        let name = &tensor.spec.name;
        let source = checkpoint.tensor(name, &tensor.spec.shape)?;
        let [_, columns] = tensor.spec.shape[..] else {
            return compare_digest(tensor, &source.digest()?);
        };
        let block = block_elements(columns);
        let rows_per_step = ((1 << 20) / columns).max(1);
        for shard in &tensor.shards {
            let mut found: Vec<f32> = Vec::new();
            match shard.quantised() {
                Some(held) if !computes => {
                    let held = held.map_err(|error| {
                        let reason = format!("parameter `{name}` cannot be read back: {error:?}");
                        Error::Verification(reason)
                    })?;
                    found.extend(floats_of(&held.bytes, shard.rows.len() * columns, block));
                }
                _ => B::read_back(shard.value(), &mut |piece| {
                    extend_as_f32(&mut found, dtype, piece);
                })?,
            }
            let mut found = &found[..];
            for start in shard.rows.clone().step_by(rows_per_step) {
                let rows = start..shard.rows.end.min(start + rows_per_step);
                let expected = Expected::read(checkpoint, source, rows, block, dtype)?;
                let Some((here, rest)) = found.split_at_checked(expected.floats.len()) else {
                    let reason = format!("parameter `{name}` holds fewer values than it has");
                    return Err(Error::Verification(reason));
                };
                expected.compare(here, block).map_err(|(found, wanted)| {
                    Error::Verification(format!(
                        "parameter `{name}` has {found} where the checkpoint has {wanted}: more than its \
                         quantisation takes away"
                    ))
                })?;
                found = rest;
            }
        }
        Ok(())
    })
}

/// What so many quantised values stand for; their blocks' scales lie behind them.
fn floats_of(held: &[u8], elements: usize, block: usize) -> impl Iterator<Item = f32> {
    let (values, scales) = held.split_at(elements.min(held.len()));
    let (scales, _) = scales.as_chunks::<4>();
    let blocks = values.chunks(block).zip(scales);
    blocks.flat_map(|(values, &scale)| {
        let scale = f32::from_le_bytes(scale);
        values
            .iter()
            .map(move |&value| f32::from(value.cast_signed()) * scale)
    })
}

/// What rows of a quantised matrix stand for, and how far off each block may be.
struct Expected {
    floats: Vec<f32>,
    tolerances: Vec<f32>,
}

impl Expected {
    fn read(
        checkpoint: &Checkpoint,
        source: &TensorRange,
        rows: std::ops::Range<usize>,
        block: usize,
        dtype: Dtype,
    ) -> Result<Expected, Error> {
        let floats = read_as_f32(source, rows.clone())?;
        if source.dtype != Dtype::I8 {
            let blocks = floats.chunks(block);
            let magnitudes =
                blocks.map(|block| block.iter().fold(0f32, |most, value| most.max(value.abs())));
            // What a block stands for is rounded once more where floats are halves.
            let rounding = match dtype {
                Dtype::F16 => 1.0 / 2048.0,
                Dtype::Bf16 => 1.0 / 256.0,
                _ => 0.0,
            };
            let tolerances = magnitudes
                .map(|magnitude| 0.501 * scale_of(magnitude) + rounding * magnitude)
                .collect();
            return Ok(Expected { floats, tolerances });
        }
        let blocks_per_row = source.shape[1] / block;
        let scales = checkpoint.tensor(
            &scales_name(&source.name),
            &[source.shape[0], blocks_per_row],
        )?;
        let scales = read_as_f32(scales, rows)?;
        let pairs = floats.chunks(block).zip(&scales);
        let floats = pairs.flat_map(|(block, scale)| block.iter().map(move |value| value * scale));
        Ok(Expected {
            floats: floats.collect(),
            tolerances: scales.iter().map(|scale| 1e-3 * scale).collect(),
        })
    }

    /// The first pair that is too far apart.
    fn compare(&self, found: &[f32], block: usize) -> Result<(), (f32, f32)> {
        let blocks = found.chunks(block).zip(self.floats.chunks(block));
        for ((found, wanted), tolerance) in blocks.zip(&self.tolerances) {
            for (&found, &wanted) in found.iter().zip(wanted) {
                let is_near = (found - wanted).abs() <= *tolerance;
                if !is_near {
                    return Err((found, wanted));
                }
            }
        }
        Ok(())
    }
}

fn read_as_f32(tensor: &TensorRange, rows: std::ops::Range<usize>) -> Result<Vec<f32>, Error> {
    let range = tensor.rows(rows.clone());
    let mut bytes = vec![0; (range.end - range.start) as usize];
    tensor.read_rows(rows, &mut bytes)?;
    let mut floats = Vec::with_capacity(bytes.len() / tensor.dtype.bytes() as usize);
    extend_as_f32(&mut floats, tensor.dtype, &bytes);
    Ok(floats)
}

fn compare_digest<B: Platform>(tensor: &TensorMut<'_, B>, expected: &Digest) -> Result<(), Error> {
    let mut hasher = Hasher::default();
    for shard in &tensor.shards {
        B::read_back(shard.value(), &mut |piece| hasher.update(piece))?;
    }
    match hasher.finish() {
        digest if digest == *expected => Ok(()),
        digest => Err(Error::Verification(format!(
            "parameter `{}` differs from the checkpoint: its digest is {digest}, not {expected}",
            tensor.spec.name
        ))),
    }
}

/// Calls `check` with every tensor, each layer's after it was brought.
pub(crate) fn for_each_tensor<B: Platform>(
    model: &mut Gpt2<B>,
    config: &Config,
    bring: &mut BringLayer<'_, B>,
    mut check: impl FnMut(&TensorMut<'_, B>) -> Result<(), Error>,
) -> Result<(), Error> {
    let layers = std::iter::once(None).chain((0..config.layers).map(Some));
    for layer in layers {
        let tensors = match layer {
            None => model.outer_mut(config),
            Some(layer) => {
                bring(model, layer)?;
                model.layer_mut(config, layer)
            }
        };
        for tensor in tensors {
            // Reading a lazy parameter would initialise it, and hide that it was never loaded.
            if !tensor.shards.iter().all(|shard| shard.is_initialised()) {
                let reason = format!("parameter `{}` was never given a value", tensor.spec.name);
                return Err(Error::Verification(reason));
            }
            check(&tensor)?;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Moments {
    count: u64,
    sum: f64,
    sum_of_squares: f64,
    largest: f64,
    is_finite: bool,
}

impl Moments {
    fn add(&mut self, value: f32) {
        let value = f64::from(value);
        self.is_finite = value.is_finite() && (self.is_finite || self.count == 0);
        self.count += 1;
        self.sum += value;
        self.sum_of_squares += value * value;
        self.largest = self.largest.max(value.abs());
    }

    fn check(&self, initial: Initial, elements: u64) -> Result<(), String> {
        if self.count != elements {
            return Err(format!("has {} elements, not {elements}", self.count));
        }
        if !self.is_finite {
            return Err("is not finite".to_owned());
        }
        let (mean, deviation, bound) = match initial {
            Initial::Zeros => (0.0, 0.0, 0.0),
            Initial::Ones => (1.0, 0.0, 1.0),
            // Half precision rounds a draw beside the bound up to it.
            Initial::Uniform { bound } => (0.0, bound / 3f64.sqrt(), bound * 1.01),
            Initial::Normal => (0.0, 1.0, 10.0),
        };
        if self.largest > bound {
            return Err(format!("reaches {}, over {bound}", self.largest));
        }
        let count = self.count as f64;
        let found_mean = self.sum / count;
        let found_variance = (self.sum_of_squares / count - found_mean * found_mean).max(0.0);
        let found_deviation = found_variance.sqrt();
        // Five standard errors, and what half precision adds.
        let tolerance = deviation * (5.0 / count.sqrt() + 0.01) + 1e-6;
        let is_right = (found_mean - mean).abs() <= tolerance
            && (found_deviation - deviation).abs() <= tolerance;
        is_right.then_some(()).ok_or_else(|| {
            format!(
                "has mean {found_mean:.4} and deviation {found_deviation:.4}, and was to be \
                 initialised with {mean:.4} and {deviation:.4}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_that_is_off_by_more_than_its_block_allows_is_found() {
        let expected = Expected {
            floats: vec![1.0, 2.0, 30.0, 40.0],
            tolerances: vec![0.01, 0.2],
        };
        assert!(expected.compare(&[1.005, 2.0, 30.1, 40.0], 2).is_ok());
        assert_eq!(
            expected.compare(&[1.02, 2.0, 30.0, 40.0], 2),
            Err((1.02, 1.0))
        );
        assert!(expected.compare(&[1.0, 2.0, 30.0, f32::NAN], 2).is_err());
    }

    #[test]
    fn zeros_are_not_taken_for_random_weights() {
        let mut moments = Moments::default();
        (0..1000).for_each(|_| moments.add(0.0));
        assert!(moments.check(Initial::Normal, 1000).is_err());
        assert!(
            moments
                .check(Initial::Uniform { bound: 0.1 }, 1000)
                .is_err()
        );
        assert!(moments.check(Initial::Zeros, 1000).is_ok());
        assert!(moments.check(Initial::Zeros, 1001).is_err());
    }
}

//! Verification: whether a run's numbers may be shown.

use std::collections::BTreeMap;

use checkpoint::{Digest, Dtype, Hasher};
use gpt2::{Config, Gpt2, Initial, TensorMut};

use crate::reference::extend_as_f32;
use crate::{Error, Platform};

/// Reads every parameter back, one at a time, and compares its digest with the checkpoint's.
pub(crate) fn digests<B: Platform>(
    model: &mut Gpt2<B>,
    config: &Config,
    expected: &BTreeMap<String, Digest>,
) -> Result<(), Error> {
    for_each_tensor(model, config, |tensor| {
        let name = &tensor.spec.name;
        let expected = expected.get(name).ok_or_else(|| {
            Error::Verification(format!("the checkpoint's digests have no `{name}`"))
        })?;
        let mut hasher = Hasher::default();
        for shard in &tensor.shards {
            B::read_back(shard.value(), &mut |piece| hasher.update(piece))?;
        }
        match hasher.finish() {
            digest if digest == *expected => Ok(()),
            digest => Err(Error::Verification(format!(
                "parameter `{name}` differs from the checkpoint: its digest is {digest}, not {expected}"
            ))),
        }
    })
}

/// Reads every parameter back and checks it against the distribution it was to be initialised from: that
/// it is there, finite, within bounds, and of the right mean and spread.
pub(crate) fn initial_weights<B: Platform>(
    model: &mut Gpt2<B>,
    config: &Config,
    dtype: Dtype,
) -> Result<(), Error> {
    for_each_tensor(model, config, |tensor| {
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

/// Compares logits with the reference: the largest difference over the largest magnitude.
pub(crate) fn logits(computed: &[f32], reference: &[f32], tolerance: f64) -> Result<f64, Error> {
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
    let error = f64::from(difference) / f64::from(magnitude.max(f32::MIN_POSITIVE));
    if error <= tolerance {
        Ok(error)
    } else {
        Err(Error::Verification(format!(
            "logits differ from the reference by {error:.2e} of its largest, over {tolerance:.0e}"
        )))
    }
}

fn for_each_tensor<B: Platform>(
    model: &mut Gpt2<B>,
    config: &Config,
    mut check: impl FnMut(&TensorMut<'_, B>) -> Result<(), Error>,
) -> Result<(), Error> {
    for tensor in model.tensors_mut(config) {
        // Reading a lazy parameter would initialise it, and hide that it was never loaded.
        if !tensor.shards.iter().all(|shard| shard.is_initialised()) {
            let reason = format!("parameter `{}` was never given a value", tensor.spec.name);
            return Err(Error::Verification(reason));
        }
        check(&tensor)?;
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
    fn equal_logits_pass_and_one_wrong_or_missing_one_fails() {
        let reference = [1.0, -2.0, 0.5];
        assert_eq!(logits(&reference, &reference, 1e-4).unwrap(), 0.0);
        assert!(logits(&[1.0, -2.0, 0.501], &reference, 1e-4).is_err());
        assert!(logits(&[1.0, f32::NAN, 0.5], &reference, 1e-4).is_err());
        assert!(logits(&[1.0, -2.0], &reference, 1e-4).is_err());
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

//! Steps of training. Generic; each platform instantiates it once, in this crate.

mod optimizer;
mod saving;

use burn::module::AutodiffModule;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};
use burn_autodiff::Autodiff;
use gpt2::Gpt2;
use meter::Panics;

use super::Platform;
use crate::finite::{self, Seen};
use crate::usage::say;
use crate::{Error, FineTuning, Run, Tell, Told};

/// Lays matrices out row by row that are not: a product rounds otherwise where strides are others, and a model is to train alike
/// whatever loaded it.
fn in_rows<B: Platform>(model: &mut Gpt2<B>, run: &Run<B>) {
    for tensor in model.tensors_mut(&run.config) {
        for shard in tensor.shards {
            let value = shard.value();
            shard.assign(value);
        }
    }
}

/// See [`Platform::train`].
pub(super) fn train<B: Platform>(
    mut model: Gpt2<B>,
    run: &Run<B>,
    tokens: &[i32],
    tuning: &FineTuning,
    tell: &mut Tell<'_>,
) -> Result<(), Error> {
    let (device, steps) = (&run.device, tuning.steps);
    in_rows(&mut model, run);
    let mut model = Gpt2::<Autodiff<B>>::trainable(model);
    let mut optimizer = AdamWConfig::new().init();
    if let Some(state) = &tuning.resume_optimizer {
        optimizer = optimizer::resume(optimizer, &mut model, run, state)?;
    }
    let length = tokens.len() - 1;
    let row = |tokens: &[i32]| TensorData::new(tokens.to_vec(), [length]);
    let inputs = Tensor::<Autodiff<B>, 1, Int>::from_data(row(&tokens[..length]), device);
    let targets = Tensor::<Autodiff<B>, 1, Int>::from_data(row(&tokens[1..]), device);
    for step in 0..=steps {
        let logits = model.forward(inputs.clone().unsqueeze());
        let [_, _, vocabulary] = logits.dims();
        let likelihoods = log_softmax(logits.reshape([length, vocabulary]), 1);
        let loss = likelihoods
            .gather(1, targets.clone().unsqueeze_dim(1))
            .mean()
            .neg();
        let read = loss.clone().try_into_data();
        Panics::check()?;
        let data = read.map_err(|error| Error::Device {
            device: format!("{device:?}"),
            reason: format!("the loss could not be read back: {error:?}"),
        })?;
        let value = data.iter::<f32>().next().unwrap_or(f32::NAN);
        if !value.is_finite() {
            let (what, advice) = match step {
                0 => ("the loss of the model as it was loaded is".to_owned(), ""),
                step => (
                    format!("the loss after {step} of {steps} steps is"),
                    ": a smaller learning rate may help",
                ),
            };
            let seen = Seen {
                what,
                value,
                advice,
            };
            let mut all_there = |_: &mut _, _| Ok(());
            return Err(finite::error(run, &mut model.valid(), &mut all_there, seen));
        }
        say(tell, Told::Loss(value))?;
        if step < steps {
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(tuning.learning_rate, model, gradients);
        }
    }
    if let Some(saving) = &tuning.save {
        saving::save(&mut model.valid(), run, saving, tell)?;
    }
    if let Some(path) = &tuning.save_optimizer {
        optimizer::save(&optimizer, &mut model, run, path, tell)?;
    }
    Ok(())
}

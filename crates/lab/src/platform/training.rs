//! Steps of training. Generic; each platform instantiates it once, in this crate.

use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use burn_autodiff::Autodiff;
use gpt2::Gpt2;

use crate::Error;

/// See [`Platform::train`](super::Platform::train).
pub(super) fn train<B: Backend>(
    model: Gpt2<B>,
    tokens: &[i32],
    steps: usize,
    learning_rate: f64,
    device: &B::Device,
    told: &mut dyn FnMut(f32),
) -> Result<(), Error> {
    let mut model = Gpt2::<Autodiff<B>>::trainable(model);
    let mut optimizer = AdamWConfig::new().init();
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
        let value = loss
            .clone()
            .into_data()
            .iter::<f32>()
            .next()
            .unwrap_or(f32::NAN);
        told(value);
        if step < steps {
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(learning_rate, model, gradients);
        }
    }
    Ok(())
}

//! A transformer block: attention and a feed-forward, each behind a layer norm and a shortcut.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, relu, sigmoid, silu};
use burn::tensor::backend::Backend;

use super::attention::Attention;
use super::layers::{LayerNorm, Specs, StoredLinear};
use super::slots::Slots;
use crate::{Activation, Config};

/// A layer.
#[derive(Module, Debug)]
pub struct Block<B: Backend> {
    attention: Attention<B>,
    widen: StoredLinear<B>,
    narrow: StoredLinear<B>,
    norm1: LayerNorm<B>,
    norm2: LayerNorm<B>,
    #[module(skip)]
    activation: Activation,
}

impl<B: Backend> Block<B> {
    /// That of a layer; they count from 0.
    pub(super) fn lazy(specs: &mut Specs<'_, B>, config: &Config, layer: usize) -> Self {
        let variant = &config.variant;
        Block {
            attention: Attention::lazy(specs, config, layer),
            widen: specs.linear(variant.biases),
            narrow: specs.linear(variant.biases),
            norm1: specs.norm(variant),
            norm2: specs.norm(variant),
            activation: variant.activation,
        }
    }

    pub(super) fn slots<'m>(&'m mut self, slots: &mut Slots<'m, B>) {
        self.attention.slots(slots);
        slots.linear(&mut self.widen);
        slots.linear(&mut self.narrow);
        slots.norm(&mut self.norm1);
        slots.norm(&mut self.norm2);
    }

    /// `[batch, sequence, width]` → the same.
    pub fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let x = x.clone() + self.attention.forward(self.norm1.forward(x));
        x.clone() + self.feed_forward(self.norm2.forward(x))
    }

    fn feed_forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, sequence, width] = x.dims();
        let hidden = self.widen.forward(x.reshape([batch * sequence, width]));
        let hidden = activate(self.activation, hidden);
        self.narrow
            .forward(hidden)
            .reshape([batch, sequence, width])
    }
}

fn activate<B: Backend>(activation: Activation, x: Tensor<B, 2>) -> Tensor<B, 2> {
    match activation {
        Activation::GeluTanh => gelu_tanh(x),
        Activation::Gelu => gelu(x),
        Activation::QuickGelu => x.clone() * sigmoid(x * 1.702),
        Activation::Relu => relu(x),
        Activation::Silu => silu(x),
    }
}

/// GELU by its tanh approximation (Hendrycks and Gimpel, 2016), as GPT-2 was trained with. The cube is
/// written as products: powers of negative numbers are not portable between GPU drivers.
fn gelu_tanh<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let cube = x.clone() * x.clone() * x.clone();
    let inner = (x.clone() + cube * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
    x * 0.5 * (inner.tanh() + 1.0)
}

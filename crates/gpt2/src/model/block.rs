//! A transformer block: attention and a feed-forward, each behind a layer norm and a shortcut.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::attention::Attention;
use super::layers::{LayerNorm, Specs, StoredLinear};
use super::slots::Slots;
use crate::Config;

#[derive(Module, Debug)]
pub(super) struct Block<B: Backend> {
    attention: Attention<B>,
    widen: StoredLinear<B>,
    narrow: StoredLinear<B>,
    norm1: LayerNorm<B>,
    norm2: LayerNorm<B>,
}

impl<B: Backend> Block<B> {
    pub fn lazy(specs: &mut Specs<'_, B>, config: &Config) -> Self {
        Block {
            attention: Attention::lazy(specs, config),
            widen: specs.linear(true),
            narrow: specs.linear(true),
            norm1: specs.norm(),
            norm2: specs.norm(),
        }
    }

    pub fn slots<'m>(&'m mut self, slots: &mut Slots<'m, B>) {
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
        let hidden = gelu_tanh(hidden);
        self.narrow
            .forward(hidden)
            .reshape([batch, sequence, width])
    }
}

/// GELU by its tanh approximation (Hendrycks and Gimpel, 2016), as GPT-2 was trained with. The cube is
/// written as products: powers of negative numbers are not portable between GPU drivers.
fn gelu_tanh<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let cube = x.clone() * x.clone() * x.clone();
    let inner = (x.clone() + cube * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
    x * 0.5 * (inner.tanh() + 1.0)
}

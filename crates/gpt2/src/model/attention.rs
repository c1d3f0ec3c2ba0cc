//! Causal multi-head self-attention.

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor};

use super::layers::{Specs, StoredLinear};
use super::slots::Slots;
use crate::Config;

#[derive(Module, Debug)]
pub(super) struct Attention<B: Backend> {
    query: StoredLinear<B>,
    key: StoredLinear<B>,
    value: StoredLinear<B>,
    out_proj: StoredLinear<B>,
    heads: usize,
    /// What scores are divided by.
    #[module(skip)]
    divisor: f64,
}

impl<B: Backend> Attention<B> {
    /// That of a layer; they count from 0.
    pub fn lazy(specs: &mut Specs<'_, B>, config: &Config, layer: usize) -> Self {
        let variant = &config.variant;
        let root = match variant.is_scaled {
            true => ((config.embedding / config.heads) as f64).sqrt(),
            false => 1.0,
        };
        let by_layer = match variant.is_scaled_by_layer {
            true => (layer + 1) as f64,
            false => 1.0,
        };
        Attention {
            query: specs.linear(config.qkv_bias),
            key: specs.linear(config.qkv_bias),
            value: specs.linear(config.qkv_bias),
            out_proj: specs.linear(variant.biases),
            heads: config.heads,
            divisor: root * by_layer,
        }
    }

    pub fn slots<'m>(&'m mut self, slots: &mut Slots<'m, B>) {
        slots.linear(&mut self.query);
        slots.linear(&mut self.key);
        slots.linear(&mut self.value);
        slots.linear(&mut self.out_proj);
    }

    /// `[batch, sequence, width]` → the same.
    pub fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, sequence, width] = x.dims();
        let head_width = width / self.heads;
        let x = x.reshape([batch * sequence, width]);
        let heads = |linear: &StoredLinear<B>| {
            let y = linear.forward(x.clone());
            y.reshape([batch, sequence, self.heads, head_width])
                .swap_dims(1, 2)
        };
        let (query, key, value) = (heads(&self.query), heads(&self.key), heads(&self.value));

        let scores = query.matmul(key.transpose()) / self.divisor;
        let future = Tensor::<B, 2, Bool>::tril_mask([sequence, sequence], 0, &scores.device());
        let scores = scores.mask_fill(future.unsqueeze(), f32::NEG_INFINITY);
        let attended = softmax(scores, 3).matmul(value);

        let merged = attended.swap_dims(1, 2).reshape([batch * sequence, width]);
        self.out_proj
            .forward(merged)
            .reshape([batch, sequence, width])
    }
}

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
}

impl<B: Backend> Attention<B> {
    pub fn lazy(specs: &mut Specs<'_, B>, config: &Config) -> Self {
        Attention {
            query: specs.linear(config.qkv_bias),
            key: specs.linear(config.qkv_bias),
            value: specs.linear(config.qkv_bias),
            out_proj: specs.linear(true),
            heads: config.heads,
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

        let scores = query.matmul(key.transpose()) / (head_width as f64).sqrt();
        let future = Tensor::<B, 2, Bool>::tril_mask([sequence, sequence], 0, &scores.device());
        let scores = scores.mask_fill(future.unsqueeze(), f32::NEG_INFINITY);
        let attended = softmax(scores, 3).matmul(value);

        let merged = attended.swap_dims(1, 2).reshape([batch * sequence, width]);
        self.out_proj
            .forward(merged)
            .reshape([batch, sequence, width])
    }
}

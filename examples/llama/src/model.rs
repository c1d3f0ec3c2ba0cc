//! Llama, of burn-nn's layers. Fields are named as in Hugging Face's checkpoints, below `model.`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::activation::silu;
use burn::tensor::backend::Backend;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Int, Tensor, TensorData};
use serde::Deserialize;

/// What the model needs of Hugging Face's `config.json`.
#[derive(Deserialize)]
pub struct LlamaConfig {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    rms_norm_eps: f64,
    rope_parameters: Rope,
    hidden_act: String,
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
}

#[derive(Deserialize)]
struct Rope {
    rope_theta: f64,
    rope_type: String,
}

#[derive(Module, Debug)]
pub struct Llama<B: Backend> {
    embed_tokens: Embedding<B>,
    layers: Vec<Layer<B>>,
    norm: RmsNorm<B>,
    lm_head: Linear<B>,
    head_width: usize,
    rope_theta: f64,
}

#[derive(Module, Debug)]
struct Layer<B: Backend> {
    input_layernorm: RmsNorm<B>,
    self_attn: Attention<B>,
    post_attention_layernorm: RmsNorm<B>,
    mlp: FeedForward<B>,
}

#[derive(Module, Debug)]
struct Attention<B: Backend> {
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    o_proj: Linear<B>,
    heads: usize,
    key_value_heads: usize,
}

#[derive(Module, Debug)]
struct FeedForward<B: Backend> {
    gate_proj: Linear<B>,
    up_proj: Linear<B>,
    down_proj: Linear<B>,
}

impl LlamaConfig {
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
        let config: Self = serde_json::from_slice(&text).context("config.json")?;
        let is_plain = config.rope_parameters.rope_type == "default"
            && config.hidden_act == "silu"
            && !config.tie_word_embeddings
            && !config.attention_bias
            && !config.mlp_bias;
        ensure!(
            is_plain,
            "only Llamas with an untied head, SiLU, no biases and unscaled positions"
        );
        Ok(config)
    }

    /// Burn's parameters are lazy: they take no memory before they are used.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Llama<B> {
        let hidden = self.hidden_size;
        let head_width = hidden / self.num_attention_heads;
        let key_value_width = head_width * self.num_key_value_heads;
        let linear = |inputs, outputs| {
            LinearConfig::new(inputs, outputs)
                .with_bias(false)
                .init(device)
        };
        let norm = || {
            RmsNormConfig::new(hidden)
                .with_epsilon(self.rms_norm_eps)
                .init(device)
        };
        let layer = |_| Layer {
            input_layernorm: norm(),
            self_attn: Attention {
                q_proj: linear(hidden, hidden),
                k_proj: linear(hidden, key_value_width),
                v_proj: linear(hidden, key_value_width),
                o_proj: linear(hidden, hidden),
                heads: self.num_attention_heads,
                key_value_heads: self.num_key_value_heads,
            },
            post_attention_layernorm: norm(),
            mlp: FeedForward {
                gate_proj: linear(hidden, self.intermediate_size),
                up_proj: linear(hidden, self.intermediate_size),
                down_proj: linear(self.intermediate_size, hidden),
            },
        };
        Llama {
            embed_tokens: EmbeddingConfig::new(self.vocab_size, hidden).init(device),
            layers: (0..self.num_hidden_layers).map(layer).collect(),
            norm: norm(),
            lm_head: linear(hidden, self.vocab_size),
            head_width,
            rope_theta: self.rope_parameters.rope_theta,
        }
    }
}

impl<B: Backend> Llama<B> {
    /// `[batch, sequence]` → `[batch, sequence, vocabulary]`.
    pub fn forward(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let [_, sequence] = tokens.dims();
        let mut x = self.embed_tokens.forward(tokens);
        let rotation = Rotation::new(sequence, self.head_width, self.rope_theta, &x);
        for layer in &self.layers {
            x = x.clone()
                + layer
                    .self_attn
                    .forward(layer.input_layernorm.forward(x), &rotation);
            x = x.clone() + layer.mlp.forward(layer.post_attention_layernorm.forward(x));
        }
        self.lm_head.forward(self.norm.forward(x))
    }
}

impl<B: Backend> Attention<B> {
    fn forward(&self, x: Tensor<B, 3>, rotation: &Rotation<B>) -> Tensor<B, 3> {
        let [batch, sequence, hidden] = x.dims();
        let split = |x: Tensor<B, 3>, heads: usize| {
            x.reshape([batch, sequence, heads, hidden / self.heads])
                .swap_dims(1, 2)
        };
        let query = split(self.q_proj.forward(x.clone()), self.heads);
        let key = split(self.k_proj.forward(x.clone()), self.key_value_heads);
        let value = split(self.v_proj.forward(x), self.key_value_heads);

        let causal = AttentionModuleOptions {
            is_causal: true,
            ..Default::default()
        };
        let x = attention(
            rotation.apply(query),
            self.for_each_query(rotation.apply(key)),
            self.for_each_query(value),
            None,
            None,
            causal,
        );
        self.o_proj
            .forward(x.swap_dims(1, 2).reshape([batch, sequence, hidden]))
    }

    /// Several query heads in a row share a head of keys and values.
    fn for_each_query(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let [batch, heads, sequence, width] = x.dims();
        x.unsqueeze_dim::<5>(2)
            .repeat_dim(2, self.heads / heads)
            .reshape([batch, self.heads, sequence, width])
    }
}

impl<B: Backend> FeedForward<B> {
    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let gate = silu(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}

/// Turns pairs of numbers by an angle that grows with the position. Hugging Face's checkpoints pair those half a head apart;
/// burn-nn's `RotaryEncoding` pairs neighbours.
struct Rotation<B: Backend> {
    cos: Tensor<B, 4>,
    sin: Tensor<B, 4>,
}

impl<B: Backend> Rotation<B> {
    /// With the device and the dtype of `x`.
    fn new(sequence: usize, head_width: usize, theta: f64, x: &Tensor<B, 3>) -> Self {
        let angle = |position: usize, pair: usize| {
            let turns = theta.powf(-2.0 * pair as f64 / head_width as f64);
            (position as f64 * turns) as f32
        };
        let half = head_width / 2;
        let angles: Vec<f32> = (0..sequence)
            .flat_map(|position| (0..half).map(move |pair| angle(position, pair)))
            .collect();
        let angles = TensorData::new(angles, [1, 1, sequence, half]);
        let angles = Tensor::<B, 4>::from_data(angles, &x.device()).repeat_dim(3, 2);
        Rotation {
            cos: angles.clone().cos().cast(x.dtype()),
            sin: angles.sin().cast(x.dtype()),
        }
    }

    fn apply(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let [left, right] = x.clone().chunk(2, 3).try_into().expect("a width is even");
        let turned = Tensor::cat(vec![right.neg(), left], 3);
        x * self.cos.clone() + turned * self.sin.clone()
    }
}

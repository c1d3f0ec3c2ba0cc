//! GPT-2 with the tensor names of the book's variant: an untied head, and biases on query, key and value.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::{Embedding, LayerNorm, Linear, Module, VarBuilder, embedding, linear, linear_b, linear_no_bias, ops};
use serde::Deserialize;

#[derive(Deserialize)]
pub struct Config {
    vocabulary: usize,
    context: usize,
    embedding: usize,
    layers: usize,
    heads: usize,
    qkv_bias: bool,
    /// In what the model differs from the book's; empty where in nothing.
    #[serde(default)]
    pub variant: String,
}

pub struct Gpt2 {
    tokens: Embedding,
    positions: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

struct Block {
    norm1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: usize,
    norm2: LayerNorm,
    widen: Linear,
    narrow: Linear,
}

fn norm(width: usize, weights: VarBuilder) -> Result<LayerNorm> {
    Ok(LayerNorm::new(weights.get(width, "scale")?, weights.get(width, "shift")?, 1e-5))
}

impl Gpt2 {
    pub fn load(config: &Config, weights: &VarBuilder) -> Result<Gpt2> {
        let width = config.embedding;
        let blocks = (0..config.layers).map(|layer| Block::load(config, weights.pp(format!("trf_blocks.{layer}"))));
        Ok(Gpt2 {
            tokens: embedding(config.vocabulary, width, weights.pp("tok_emb"))?,
            positions: embedding(config.context, width, weights.pp("pos_emb"))?,
            blocks: blocks.collect::<Result<_>>()?,
            norm: norm(width, weights.pp("final_norm"))?,
            head: linear_no_bias(width, config.vocabulary, weights.pp("out_head"))?,
        })
    }

    /// The logits `[tokens, vocabulary]` of one sequence.
    pub fn forward(&self, tokens: &[u32]) -> Result<Tensor> {
        let device = &Device::Cpu;
        let ids = Tensor::new(tokens, device)?;
        let positions = Tensor::arange(0, tokens.len() as u32, device)?;
        let mut x = (self.tokens.forward(&ids)? + self.positions.forward(&positions)?)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        self.head.forward(&self.norm.forward(&x)?)
    }
}

impl Block {
    fn load(config: &Config, weights: VarBuilder) -> Result<Block> {
        let width = config.embedding;
        let attention = weights.pp("att");
        let projection = |name| linear_b(width, width, config.qkv_bias, attention.pp(name));
        Ok(Block {
            norm1: norm(width, weights.pp("norm1"))?,
            query: projection("W_query")?,
            key: projection("W_key")?,
            value: projection("W_value")?,
            out: linear(width, width, attention.pp("out_proj"))?,
            heads: config.heads,
            norm2: norm(width, weights.pp("norm2"))?,
            widen: linear(width, 4 * width, weights.pp("ff.layers.0"))?,
            narrow: linear(4 * width, width, weights.pp("ff.layers.2"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = (x + self.attend(&self.norm1.forward(x)?)?)?;
        // candle's `gelu` is the approximation by tanh, which GPT-2 was trained with.
        let hidden = self.widen.forward(&self.norm2.forward(&x)?)?.gelu()?;
        x + self.narrow.forward(&hidden)?
    }

    fn attend(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let heads = |y: Tensor| y.reshape((tokens, self.heads, width / self.heads))?.transpose(0, 1)?.contiguous();
        let query = heads(self.query.forward(x)?)?;
        let key = heads(self.key.forward(x)?)?;
        let value = heads(self.value.forward(x)?)?;
        let scores = (query.matmul(&key.transpose(1, 2)?)? / ((width / self.heads) as f64).sqrt())?;
        let future: Vec<f32> = (0..tokens * tokens)
            .map(|at| if at % tokens > at / tokens { f32::NEG_INFINITY } else { 0.0 })
            .collect();
        let future = Tensor::from_vec(future, (1, tokens, tokens), x.device())?.to_dtype(x.dtype())?;
        let weights = ops::softmax(&scores.broadcast_add(&future)?, D::Minus1)?;
        let merged = weights.matmul(&value)?.transpose(0, 1)?.reshape((tokens, width))?;
        self.out.forward(&merged)
    }
}

//! A model's `config.json`, as transformers keeps it.

use std::path::Path;

use gpt2::Config;
use serde_json::json;

use crate::atomic;

pub const FILE: &str = "config.json";

/// Writes it into a folder.
pub fn write(folder: &Path, config: &Config) -> anyhow::Result<()> {
    let told = json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_head": config.heads,
        "n_embd": config.embedding,
        "n_layer": config.layers,
        "n_positions": config.context,
        "vocab_size": config.vocabulary,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
        "tie_word_embeddings": false,
    });
    atomic::write(&folder.join(FILE), serde_json::to_vec_pretty(&told)?)
}

//! A model's configuration beside what is written of it: `config.json` as transformers reads it, and the same in the metadata of
//! a file.

use std::collections::BTreeMap;
use std::path::Path;

use gpt2::{Activation, Config};
use serde_json::{Value, json};

use crate::atomic;

/// What it is called.
pub const FILE: &str = "config.json";
/// Under which name a file's metadata holds the text of `config.json`.
pub const METADATA_KEY: &str = FILE;

/// Writes `config.json` into a folder.
pub fn write(folder: &Path, config: &Config) -> anyhow::Result<()> {
    atomic::write(&folder.join(FILE), text(config))
}

/// What a file's metadata is to say of the model.
pub fn metadata(config: &Config) -> BTreeMap<String, String> {
    BTreeMap::from([(METADATA_KEY.to_owned(), text(config))])
}

/// The text of `config.json`. What transformers' GPT-2 cannot have otherwise is in fields of this project, where it is otherwise.
pub fn text(config: &Config) -> String {
    let variant = &config.variant;
    let mut object = json!({
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocabulary,
        "n_positions": config.context,
        "n_embd": config.embedding,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": variant.inner,
        "activation_function": match variant.activation {
            Activation::GeluTanh => "gelu_new",
            Activation::Gelu => "gelu",
            Activation::QuickGelu => "quick_gelu",
            Activation::Relu => "relu",
            Activation::Silu => "silu",
        },
        "layer_norm_epsilon": variant.epsilon.value(),
        "scale_attn_weights": variant.is_scaled,
        "scale_attn_by_inverse_layer_idx": variant.is_scaled_by_layer,
        "tie_word_embeddings": variant.is_tied,
    });
    for (name, has_it) in [("qkv_bias", config.qkv_bias), ("bias", variant.biases)] {
        if !has_it {
            object[name] = Value::Bool(false);
        }
    }
    serde_json::to_string_pretty(&object).expect("an object is JSON") + "\n"
}

#[cfg(test)]
mod tests {
    use gpt2::Size;

    use super::super::hugging_face;
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for size in [
            "small",
            "v9-c8-e4-l1-h2-nobias",
            "v9-c8-e4-l1-h2-nobias-i12-bare-relu-eps0.000001-unscaled-bylayer-tied",
        ] {
            let config = size.parse::<Size>().unwrap().config();
            let object: Value = serde_json::from_str(&text(&config)).unwrap();
            let told = hugging_face::read("it", object.as_object().unwrap(), &[]).unwrap();
            // What tensors show, and no more.
            let mut shown = Config {
                heads: 1,
                variant: Default::default(),
                ..config
            };
            shown.variant.inner = config.variant.inner;
            shown.variant.biases = config.variant.biases;
            shown.variant.is_tied = config.variant.is_tied;
            assert_eq!(told.complete(shown).unwrap(), config, "{size}");
        }
    }
}

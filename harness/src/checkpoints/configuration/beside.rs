//! What a training program says of the model beside its weights, in its own words: `config`, `hyper_parameters`, `args`. It is not
//! taken for the model's configuration, for nobody says that it is; but it must not say anything else than what is loaded.

use std::collections::BTreeMap;

use gpt2::{Config, Epsilon};

use super::{METADATA_KEY, hugging_face};

const HEADS: &[&str] = &[
    "n_head",
    "n_heads",
    "nhead",
    "num_attention_heads",
    "num_heads",
];

/// That nothing in a checkpoint's metadata says other of the model than what it is loaded as. `ignored` are names, or whole paths of
/// names, that a person says are harmless.
///
/// # Errors
///
/// Every entry that says otherwise.
pub fn check(
    metadata: &BTreeMap<String, String>,
    config: &Config,
    ignored: &[String],
) -> Result<(), String> {
    let variant = &config.variant;
    let mut wrong = Vec::new();
    for (path, value) in metadata {
        let name = path.rsplit('.').next().unwrap_or(path);
        let is_ignored = ignored.iter().any(|given| given == name || given == path);
        if path == METADATA_KEY || path.starts_with("model_args.") || value == "null" || is_ignored
        {
            continue;
        }
        let agrees = match name {
            _ if HEADS.contains(&name) => *value == config.heads.to_string(),
            "n_layer" | "n_layers" | "num_layers" | "num_hidden_layers" => {
                *value == config.layers.to_string()
            }
            "n_embd" | "emb_dim" | "embed_dim" | "d_model" | "hidden_size" => {
                *value == config.embedding.to_string()
            }
            "activation" | "activation_function" | "hidden_act" => {
                hugging_face::activation(value) == Some(variant.activation)
            }
            "layer_norm_epsilon" | "layer_norm_eps" | "norm_eps" => {
                let said = value.parse().ok().and_then(Epsilon::new);
                said == Some(variant.epsilon)
            }
            "scale_attn_weights" => *value == variant.is_scaled.to_string(),
            "scale_attn_by_inverse_layer_idx" => *value == variant.is_scaled_by_layer.to_string(),
            _ => true,
        };
        if !agrees {
            wrong.push(format!(
                "`{path}` in it is {value}, and that is not what it would be loaded as: say in --size what it is, or with \
                 --ignore-config {name} that this is of something else"
            ));
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("; ")),
    }
}

/// How many heads a program says that the model has, and under which name.
pub fn heads(metadata: &BTreeMap<String, String>) -> Option<(&str, usize)> {
    metadata.iter().find_map(|(path, value)| {
        let name = path.rsplit('.').next()?;
        let heads = value.parse().ok().filter(|heads| *heads > 0)?;
        HEADS.contains(&name).then_some((&**path, heads))
    })
}

#[cfg(test)]
mod tests {
    use gpt2::Size;

    use super::*;

    #[test]
    fn what_is_said_beside_the_weights_must_not_contradict_what_is_loaded() {
        let config = "v9-c8-e4-l1-h2".parse::<Size>().unwrap().config();
        let said = |path: &str, value: &str| BTreeMap::from([(path.to_owned(), value.to_owned())]);
        for (path, value) in [
            ("config.n_head", "2"),
            ("config.activation", "gelu_new"),
            ("hyper_parameters.n_layer", "1"),
            ("config.learning_rate", "4"),
            ("config.n_head", "null"),
        ] {
            assert_eq!(check(&said(path, value), &config, &[]), Ok(()), "{path}");
        }
        for (path, value) in [
            ("config.n_head", "4"),
            ("config.activation_function", "relu"),
            ("hyper_parameters.activation", "torch.nn.ReLU"),
            ("args.layer_norm_epsilon", "1e-3"),
            ("config.scale_attn_weights", "false"),
        ] {
            let error = check(&said(path, value), &config, &[]).unwrap_err();
            assert!(error.contains(path) && error.contains(value), "{error}");
            let name = path.rsplit('.').next().unwrap().to_owned();
            assert_eq!(check(&said(path, value), &config, &[name]), Ok(()));
        }
        assert_eq!(heads(&said("args.n_head", "4")), Some(("args.n_head", 4)));
        assert_eq!(heads(&said("args.n_head", "many")), None);
    }
}

//! `config.json`, as transformers writes it for GPT-2. Every field is computed as it says, known to change nothing that a loaded
//! model computes, or refused by its name.

use gpt2::{Activation, Epsilon};
use serde_json::{Map, Value};

use super::{Said, Told};

/// What changes nothing of a forward without dropout and sampling: training, generation, bookkeeping.
const HARMLESS: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_commit_hash",
    "_name_or_path",
    "_num_labels",
    "attn_implementation",
    "attn_pdrop",
    "author",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "created_date",
    "custom_pipelines",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_decoder",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "license",
    "max_length",
    "min_length",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "predict_special_tokens",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    // Computes the same in another order, in single precision.
    "reorder_and_upcast_attn",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "use_bfloat16",
    "use_cache",
];

/// transformers' classes with GPT-2 inside.
const CLASSES: &[&str] = &[
    "GPT2DoubleHeadsModel",
    "GPT2ForQuestionAnswering",
    "GPT2ForSequenceClassification",
    "GPT2ForTokenClassification",
    "GPT2LMHeadModel",
    "GPT2Model",
];

/// transformers' names of GELU's tanh approximation.
const TANH: &[&str] = &[
    "gelu_accurate",
    "gelu_fast",
    "gelu_new",
    "gelu_python_tanh",
    "gelu_pytorch_tanh",
];

/// What must be so, or left out: other values compute something else.
const NEUTRAL: &[(&str, &[&str])] = &[
    ("add_cross_attention", &["false", "null"]),
    ("cross_attention_hidden_size", &["null"]),
    ("is_encoder_decoder", &["false", "null"]),
    ("pruned_heads", &["{}", "null"]),
    ("quantization_config", &["null"]),
    ("tie_encoder_decoder", &["false", "null"]),
];

/// Reads the object. `ignored` are fields that a person says are harmless.
///
/// # Errors
///
/// Every field that is of another model, unknown, or no value of its kind.
pub fn read(by: &str, object: &Map<String, Value>, ignored: &[String]) -> Result<Told, String> {
    let mut reading = Reading {
        object,
        wrong: Vec::new(),
    };
    let is_told = |name: &&String| !ignored.contains(name);
    let mut told = Told {
        by: by.to_owned(),
        // What transformers takes where the file says nothing.
        activation: Some((Activation::GeluTanh, "activation_function")),
        is_tied: Some((true, "tie_word_embeddings")),
        ..Told::default()
    };
    let defaults = ["activation_function", "tie_word_embeddings"].into_iter();
    told.defaults = defaults
        .filter(|name| !object.contains_key(*name))
        .collect();
    for name in object.keys().filter(is_told) {
        match &**name {
            "model_type" => reading.must_be("model_type", "gpt2"),
            "architectures" => reading.architectures(),
            "vocab_size" => told.vocabulary = reading.size("vocab_size"),
            "n_positions" | "n_ctx" | "max_position_embeddings" => {
                told.context = reading.one_of(&["n_positions", "n_ctx", "max_position_embeddings"]);
            }
            "n_embd" | "hidden_size" => told.embedding = reading.one_of(&["n_embd", "hidden_size"]),
            "n_layer" | "num_hidden_layers" => {
                told.layers = reading.one_of(&["n_layer", "num_hidden_layers"]);
            }
            "n_head" | "num_attention_heads" => {
                told.heads = reading.one_of(&["n_head", "num_attention_heads"]);
            }
            "n_inner" if object[name].is_null() => {}
            "n_inner" => told.inner = reading.size("n_inner"),
            "activation_function" => told.activation = reading.activation(),
            "layer_norm_epsilon" => told.epsilon = reading.epsilon(),
            "scale_attn_weights" => told.is_scaled = reading.flag("scale_attn_weights"),
            "scale_attn_by_inverse_layer_idx" => {
                told.is_scaled_by_layer = reading.flag("scale_attn_by_inverse_layer_idx");
            }
            "tie_word_embeddings" => told.is_tied = reading.flag("tie_word_embeddings"),
            // Of this project: what transformers' GPT-2 cannot have otherwise.
            "qkv_bias" => told.qkv_bias = reading.flag("qkv_bias"),
            "bias" => told.biases = reading.flag("bias"),
            other if HARMLESS.contains(&other) => {}
            other => match NEUTRAL.iter().find(|(known, _)| *known == other) {
                Some((_, allowed)) => reading.neutral(other, allowed),
                None => reading.unknown(other),
            },
        }
    }
    if ignored.iter().any(|name| name == "tie_word_embeddings") {
        told.is_tied = None;
    }
    match reading.wrong.is_empty() {
        true => Ok(told),
        false => Err(format!("{by}: {}", reading.wrong.join("; "))),
    }
}

/// The activation that transformers has under this name.
pub fn activation(name: &str) -> Option<Activation> {
    match name {
        _ if TANH.contains(&name) => Some(Activation::GeluTanh),
        "gelu" | "gelu_python" => Some(Activation::Gelu),
        "quick_gelu" => Some(Activation::QuickGelu),
        "relu" => Some(Activation::Relu),
        "silu" | "swish" => Some(Activation::Silu),
        _ => None,
    }
}

/// An object that is read, and what is wrong with it.
struct Reading<'a> {
    object: &'a Map<String, Value>,
    wrong: Vec<String>,
}

impl Reading<'_> {
    fn refuse<T>(&mut self, name: &str, expected: &str) -> Said<T> {
        let value = shown(&self.object[name]);
        self.wrong
            .push(format!("`{name}` is {value}, and {expected}"));
        None
    }

    fn size(&mut self, name: &'static str) -> Said<usize> {
        match self.object[name].as_u64() {
            Some(size) if size > 0 && size <= u64::from(u32::MAX) => Some((size as usize, name)),
            _ => self.refuse(name, "a number above 0 is expected"),
        }
    }

    /// One size under several names: they must agree.
    fn one_of(&mut self, names: &[&'static str]) -> Said<usize> {
        let there = names.iter().filter(|name| self.object.contains_key(**name));
        let there: Vec<&'static str> = there.copied().collect();
        let sizes: Vec<_> = there.iter().map(|name| self.size(name)).collect();
        let known: Vec<(usize, &'static str)> = sizes.into_iter().flatten().collect();
        let first = known.first().copied();
        if let Some((size, name)) = first
            && let Some((other, other_name)) = known.iter().find(|(other, _)| *other != size)
        {
            let text = format!("`{name}` is {size}, and `{other_name}` {other}");
            if !self.wrong.contains(&text) {
                self.wrong.push(text);
            }
        }
        first
    }

    fn flag(&mut self, name: &'static str) -> Said<bool> {
        match self.object[name].as_bool() {
            Some(flag) => Some((flag, name)),
            None => self.refuse(name, "true or false is expected"),
        }
    }

    fn epsilon(&mut self) -> Said<Epsilon> {
        const NAME: &str = "layer_norm_epsilon";
        match self.object[NAME].as_f64().and_then(Epsilon::new) {
            Some(epsilon) => Some((epsilon, NAME)),
            None => self.refuse(NAME, "a small number above 0 is expected"),
        }
    }

    /// By transformers' names.
    fn activation(&mut self) -> Said<Activation> {
        const NAME: &str = "activation_function";
        match self.object[NAME].as_str().and_then(activation) {
            Some(activation) => Some((activation, NAME)),
            None => {
                let known = "gelu_new, gelu, quick_gelu, relu and silu can be computed";
                self.refuse(NAME, known)
            }
        }
    }

    fn must_be(&mut self, name: &str, expected: &str) {
        if self.object[name].as_str() != Some(expected) {
            self.refuse::<()>(name, &format!("this is for {expected}"));
        }
    }

    fn architectures(&mut self) {
        let names = self.object["architectures"].as_array();
        // TensorFlow's and Flax's classes of a model compute what PyTorch's does.
        let is_known = |name: &str| {
            let without = name.strip_prefix("TF").or(name.strip_prefix("Flax"));
            CLASSES.contains(&without.unwrap_or(name))
        };
        let is_gpt2 = |name: &Value| name.as_str().is_some_and(is_known);
        let are_gpt2 = names.is_some_and(|names| names.iter().all(is_gpt2));
        if !are_gpt2 && !self.object["architectures"].is_null() {
            self.refuse::<()>("architectures", "this is for GPT-2");
        }
    }

    fn neutral(&mut self, name: &str, allowed: &[&str]) {
        let value = self.object[name].to_string();
        if !allowed.contains(&&*value) {
            self.refuse::<()>(name, "such a model is not computed here");
        }
    }

    fn unknown(&mut self, name: &str) {
        let value = shown(&self.object[name]);
        self.wrong.push(format!(
            "`{name}` is {value}, and what it does is not known here: where it changes nothing that the model computes, say so \
             with --ignore-config {name}"
        ));
    }
}

/// A value in a message: its beginning.
fn shown(value: &Value) -> String {
    let text: String = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_value(value: Value, ignored: &[&str]) -> Result<Told, String> {
        let ignored: Vec<String> = ignored.iter().map(|name| (*name).to_owned()).collect();
        read("config.json", value.as_object().unwrap(), &ignored)
    }

    #[test]
    fn what_transformers_writes_for_gpt2_is_read() {
        let told = read_value(
            json!({
                "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new", "attn_pdrop": 0.1,
                "bos_token_id": 50256, "embd_pdrop": 0.1, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "n_ctx": 1024,
                "n_embd": 768, "n_head": 12, "n_inner": null, "n_layer": 12, "n_positions": 1024, "reorder_and_upcast_attn": false,
                "resid_pdrop": 0.1, "scale_attn_by_inverse_layer_idx": false, "scale_attn_weights": true, "summary_type": "cls_index",
                "task_specific_params": {"text-generation": {"do_sample": true}}, "transformers_version": "5.0", "use_cache": true,
                "vocab_size": 50257
            }),
            &[],
        )
        .unwrap();
        assert_eq!(told.heads, Some((12, "n_head")));
        assert_eq!(told.inner, None);
        assert_eq!(
            told.is_tied,
            Some((true, "tie_word_embeddings")),
            "what it goes without saying"
        );
    }

    #[test]
    fn what_changes_the_model_is_computed_or_refused_by_its_name() {
        let computed = json!({"activation_function": "relu", "scale_attn_weights": false, "layer_norm_epsilon": 1e-6, "n_inner": 7});
        let told = read_value(computed, &[]).unwrap();
        assert_eq!(
            told.activation,
            Some((Activation::Relu, "activation_function"))
        );
        assert_eq!(told.is_scaled, Some((false, "scale_attn_weights")));
        assert_eq!(told.inner, Some((7, "n_inner")));
        let refused = [
            (
                json!({"activation_function": "mish"}),
                "`activation_function` is \"mish\"",
            ),
            (json!({"model_type": "llama"}), "`model_type` is \"llama\""),
            (
                json!({"architectures": ["OPTForCausalLM"]}),
                "`architectures`",
            ),
            (
                json!({"add_cross_attention": true}),
                "`add_cross_attention` is true",
            ),
            (json!({"pruned_heads": {"0": [1]}}), "`pruned_heads`"),
            (
                json!({"quantization_config": {"bits": 4}}),
                "`quantization_config`",
            ),
            (json!({"n_head": 0}), "`n_head` is 0"),
            (json!({"n_head": "4"}), "`n_head` is \"4\""),
            (
                json!({"n_ctx": 8, "n_positions": 9}),
                "`n_positions` is 9, and `n_ctx` 8",
            ),
            (
                json!({"layer_norm_epsilon": -1}),
                "`layer_norm_epsilon` is -1",
            ),
            (json!({"rotary_dim": 64}), "--ignore-config rotary_dim"),
            // transformers knows no such names, and takes its default.
            (json!({"n_heads": 4}), "--ignore-config n_heads"),
            (json!({"n_layers": 4}), "--ignore-config n_layers"),
            (
                json!({"architectures": ["GPT2MoEForCausalLM"]}),
                "`architectures`",
            ),
        ];
        for (value, expected) in refused {
            let error = read_value(value, &[]).unwrap_err();
            assert!(
                error.contains(expected),
                "{error}\nshould contain {expected}"
            );
        }
    }

    #[test]
    fn what_people_add_on_the_hub_and_classes_of_other_frameworks_change_nothing() {
        for value in [
            json!({"author": "a", "created_date": "b", "license": "c"}),
            json!({"predict_special_tokens": true}),
            json!({"architectures": ["TFGPT2LMHeadModel"]}),
            json!({"architectures": ["FlaxGPT2Model"]}),
        ] {
            assert!(read_value(value.clone(), &[]).is_ok(), "{value}");
        }
        let error = read_value(json!({"architectures": ["TFBertModel"]}), &[]).unwrap_err();
        assert!(error.contains("`architectures`"), "{error}");
    }

    #[test]
    fn a_person_can_say_that_a_field_is_harmless() {
        assert!(read_value(json!({"mine": 1, "n_head": 2}), &["mine"]).is_ok());
        let told = read_value(
            json!({"tie_word_embeddings": true}),
            &["tie_word_embeddings"],
        );
        assert_eq!(told.unwrap().is_tied, None);
    }
}

//! `model_args`, as nanoGPT keeps them in its training checkpoints, beside the state dict.

use std::collections::BTreeMap;

use gpt2::Activation;

use super::Told;

/// What stands before their names in a checkpoint's metadata.
const PREFIX: &str = "model_args.";

/// That the head is the token table, which no argument says.
pub const NANOGPTS_HEAD: &str = "nanoGPT's head";

/// Reads them off a checkpoint's metadata; `None` where it has none.
///
/// # Errors
///
/// Every argument that is unknown, or no value of its kind.
pub fn read(
    path: &str,
    metadata: &BTreeMap<String, String>,
    ignored: &[String],
) -> Result<Option<Told>, String> {
    let by = format!("{path}: model_args");
    let mut told = Told {
        by: by.clone(),
        // nanoGPT's model has no other.
        activation: Some((Activation::Gelu, "nanoGPT's activation")),
        is_tied: Some((true, NANOGPTS_HEAD)),
        ..Told::default()
    };
    let mut wrong = Vec::new();
    let mut is_there = false;
    let arguments = metadata
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)));
    for (name, value) in arguments {
        is_there = true;
        let size = |known: &'static str| match value.parse::<u32>() {
            Ok(size) if size > 0 => Ok(Some((size as usize, known))),
            _ => Err(format!(
                "`{name}` is {value}, and a number above 0 is expected"
            )),
        };
        let read = match name {
            "n_layer" => size("n_layer").map(|said| told.layers = said),
            "n_head" => size("n_head").map(|said| told.heads = said),
            "n_embd" => size("n_embd").map(|said| told.embedding = said),
            "block_size" => size("block_size").map(|said| told.context = said),
            "vocab_size" => size("vocab_size").map(|said| told.vocabulary = said),
            "bias" => match &**value {
                "true" | "false" => {
                    let said = Some((value == "true", "bias"));
                    (told.biases, told.qkv_bias) = (said, said);
                    Ok(())
                }
                _ => Err(format!("`bias` is {value}, and true or false is expected")),
            },
            "dropout" => Ok(()),
            other if ignored.iter().any(|name| name == other) => Ok(()),
            other => Err(format!(
                "`{other}` is {value}, and what it does is not known here: where it changes nothing that the model computes, say \
                 so with --ignore-config {other}"
            )),
        };
        wrong.extend(read.err());
    }
    match (is_there, wrong.is_empty()) {
        (false, _) => Ok(None),
        (true, true) => Ok(Some(told)),
        (true, false) => Err(format!("{by}: {}", wrong.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_these(arguments: &[(&str, &str)]) -> Result<Option<Told>, String> {
        let metadata = arguments.iter();
        let metadata =
            metadata.map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()));
        read("ckpt.pt", &metadata.collect(), &[])
    }

    #[test]
    fn nanogpts_arguments_are_believed_and_unknown_ones_refused() {
        assert_eq!(read_these(&[]).unwrap(), None);
        let told = read_these(&[("n_head", "4"), ("bias", "false"), ("dropout", "0.0")]);
        let told = told.unwrap().unwrap();
        assert_eq!(told.heads, Some((4, "n_head")));
        assert_eq!(told.biases, Some((false, "bias")));
        assert_eq!(told.activation.unwrap().0, Activation::Gelu);
        for (arguments, expected) in [
            (("n_head", "0"), "`n_head` is 0"),
            (("rope", "true"), "--ignore-config rope"),
            (("bias", "1"), "`bias` is 1"),
            (("act", "torch.relu"), "`act` is torch.relu"),
            (("n_head", "a list"), "`n_head` is a list"),
        ] {
            let error = read_these(&[arguments]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}

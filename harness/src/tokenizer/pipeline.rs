//! The steps of a `tokenizer.json` before and behind its vocabulary. Anybody's file says what they are, and steps that make a text
//! longer, one behind the other, make terabytes of a letter.

use anyhow::{bail, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// What may make a text longer. Llama's has two of them.
const GROWING: [&str; 3] = ["Replace", "Prepend", "Precompiled"];
/// What steps of these kinds have.
const OF_GROWING: [&str; 3] = ["content", "prepend", "precompiled_charsmap"];
/// So many of these in all.
const MOST_GROWING: usize = 4;
/// What each puts in place of a letter.
const MOST_BYTES: usize = 16;
/// Steps in all.
const MOST_STEPS: usize = 64;
/// Values in all of them.
const MOST_VALUES: usize = 10_000;
/// The longest pattern or text of a step; T5's map of characters is longer, and compiled already.
const MOST_TEXT_BYTES: usize = 16 << 10;
/// Each is compared with those before it.
pub const MOST_ADDED: usize = 20_000;

/// The parts of the file that are looked at.
#[derive(Deserialize)]
struct Steps {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    #[serde(default)]
    added_tokens: Vec<IgnoredAny>,
}

/// That its steps make a text little longer, and that it has no more of anything than is read in a moment.
pub fn check(text: &[u8]) -> anyhow::Result<()> {
    let steps: Steps = serde_json::from_slice(text)?;
    let parts = [
        &steps.normalizer,
        &steps.pre_tokenizer,
        &steps.post_processor,
        &steps.decoder,
    ];
    ensure!(
        steps.added_tokens.len() <= MOST_ADDED,
        "it has {} added tokens, and at most {MOST_ADDED} are read",
        steps.added_tokens.len()
    );
    let (mut all, mut growing, mut values) = (0, 0, 0);
    let mut rest: Vec<&Value> = parts.into_iter().flatten().collect();
    while let Some(value) = rest.pop() {
        values += 1;
        ensure!(
            values <= MOST_VALUES,
            "its steps have more than {MOST_VALUES} values, and no more are read"
        );
        match value {
            Value::Object(entries) => {
                let kind = value.get("type").and_then(Value::as_str);
                all += usize::from(kind.is_some());
                // Old files do not say of what kind a step is: what it has tells.
                let is_growing = kind.map_or_else(
                    || OF_GROWING.iter().any(|key| entries.contains_key(*key)),
                    |kind| GROWING.contains(&kind),
                );
                if is_growing {
                    growing += 1;
                    check_growing(value, kind.unwrap_or("without a type"))?;
                }
                let others = entries.iter();
                let others = others.filter(|(key, _)| *key != "precompiled_charsmap");
                rest.extend(others.map(|(_, value)| value));
            }
            Value::Array(values) => rest.extend(values),
            Value::String(text) => ensure!(
                text.len() <= MOST_TEXT_BYTES,
                "one of its steps has a text of {} bytes, and at most {MOST_TEXT_BYTES} are read",
                text.len()
            ),
            _ => {}
        }
    }
    ensure!(
        all <= MOST_STEPS,
        "it has {all} steps, and at most {MOST_STEPS} are read"
    );
    ensure!(
        growing <= MOST_GROWING,
        "{growing} of its steps ({}) can make a text longer, and at most {MOST_GROWING} are read",
        GROWING.join(", ")
    );
    Ok(())
}

fn check_growing(step: &Value, kind: &str) -> anyhow::Result<()> {
    let texts = ["content", "prepend"].map(|key| step.get(key).and_then(Value::as_str));
    let longest = texts.into_iter().flatten().map(str::len).max();
    if longest.is_some_and(|bytes| bytes > MOST_BYTES) {
        bail!(
            "its step {kind} puts {} bytes in place of others, and at most {MOST_BYTES} are read",
            longest.unwrap_or(0)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_make_a_text_longer_without_end_are_refused() {
        let llama = r#"{"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}]}}"#;
        check(llama.as_bytes()).unwrap();
        check(
            br#"{"normalizer": null, "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE"}}"#,
        )
        .unwrap();
        for double in [
            r#"{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}"#,
            r#"{"pattern": {"String": "a"}, "content": "aa"}"#,
        ] {
            for part in ["normalizer", "decoder"] {
                let many = vec![double; 60].join(",");
                let text = format!(r#"{{"{part}": {{"type": "Sequence", "{part}s": [{many}]}}}}"#);
                let error = check(text.as_bytes()).unwrap_err().to_string();
                assert!(error.contains("60 of its steps"), "{error}");
            }
        }
        let pattern = "a|".repeat(MOST_TEXT_BYTES);
        let pattern = format!(r#"{{"pre_tokenizer": {{"pattern": {{"Regex": "{pattern}"}}}}}}"#);
        let pieces = vec![r#"{"Sequence": {"id": "A", "type_id": 0}}"#; MOST_VALUES].join(",");
        let pieces = format!(r#"{{"post_processor": {{"single": [{pieces}]}}}}"#);
        let added = format!(
            r#"{{"added_tokens": [{}]}}"#,
            vec!["0"; MOST_ADDED + 1].join(",")
        );
        for (text, expected) in [
            (pattern, "a text of 32768 bytes"),
            (pieces, "more than 10000 values"),
            (added, "20001 added tokens"),
        ] {
            let error = check(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let long = format!(
            r#"{{"normalizer": {{"type": "Prepend", "prepend": "{}"}}}}"#,
            "a".repeat(99)
        );
        let error = check(long.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("puts 99 bytes"), "{error}");
    }
}

//! GPT-2's tokenizer, from the vocabulary files of whoever trained the model.

mod added;
mod pipeline;

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use checkpoint::{is_there, read_whole};
use meter::Panics;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::json;

/// The names of a vocabulary and its merges: Hugging Face's, and OpenAI's own.
const PAIRS: [[&str; 2]; 2] = [["vocab.json", "merges.txt"], ["encoder.json", "vocab.bpe"]];

/// The largest tokenizers have some 20 MB.
const MAX_BYTES: u64 = 64 << 20;

/// Those of the largest have some 500 000.
const MOST_MERGES: usize = 1_000_000;

/// Text to token ids, and back.
pub struct Tokenizer(tokenizers::Tokenizer);

impl Tokenizer {
    /// Reads `tokenizer.json`, or a folder with that file, with `vocab.json` and `merges.txt`, or with `encoder.json` and
    /// `vocab.bpe`; or one of the latter, beside which the other lies.
    pub fn read(path: &Path) -> anyhow::Result<Tokenizer> {
        // The crate tokenizers 0.22 panics at some files, which are none then.
        let read = Panics::caught(|| Tokenizer::read_file(path));
        read.unwrap_or_else(|message| {
            Err(anyhow!("{}: is no tokenizer: {message}", path.display()))
        })
    }

    fn read_file(path: &Path) -> anyhow::Result<Tokenizer> {
        let wrong =
            |error: tokenizers::Error| anyhow!("{}: is no tokenizer: {error}", path.display());
        let folder = folder_of(path);
        let whole = match path.is_dir() {
            true => path.join("tokenizer.json"),
            false => path.to_owned(),
        };
        if is_there(&whole) && !is_of_a_pair(path) {
            let text = json::read_bounded(&whole, MAX_BYTES)?;
            pipeline::check(&text)
                .with_context(|| format!("{}: is no tokenizer", whole.display()))?;
            let mut read = tokenizers::Tokenizer::from_bytes(text).map_err(wrong)?;
            // A prompt is taken as it is: what is put in for training's sake, or cut off, would be another's.
            read.with_padding(None);
            read.with_truncation(None).map_err(wrong)?;
            // Chance is for training: the same prompt is the same tokens.
            if let ModelWrapper::BPE(model) = read.get_model()
                && model.dropout.is_some()
            {
                let mut model = model.clone();
                model.dropout = None;
                read.with_model(model);
            }
            return Ok(Tokenizer(read));
        }
        let pairs = PAIRS.map(|pair| pair.map(|name| folder.join(name)));
        let mut pairs = pairs.iter();
        let Some([vocabulary, merges]) = pairs.find(|pair| pair.iter().all(|file| is_there(file)))
        else {
            bail!(
                "{}: holds neither tokenizer.json, nor vocab.json and merges.txt, nor encoder.json and vocab.bpe: GPT-2's are \
                 on its page on the Hugging Face hub",
                path.display()
            );
        };
        // The crate opens them itself.
        json::read_bounded(vocabulary, MAX_BYTES)?;
        let lines = read_whole(merges, MAX_BYTES)?;
        ensure!(
            !lines.is_empty(),
            "{}: is empty: get the file again",
            merges.display()
        );
        let lines = lines.iter().filter(|&&byte| byte == b'\n').count();
        ensure!(
            lines <= MOST_MERGES,
            "{}: has {lines} lines, and at most {MOST_MERGES} are read",
            merges.display()
        );
        let model = BPE::from_file(&vocabulary.to_string_lossy(), &merges.to_string_lossy());
        let mut tokenizer = tokenizers::Tokenizer::new(model.build().map_err(wrong)?);
        let added = added::read(folder)?;
        let bytes = ByteLevel::default().add_prefix_space(added.prefix_space);
        tokenizer.with_pre_tokenizer(Some(bytes));
        tokenizer.with_decoder(Some(bytes));
        added.add_to(&mut tokenizer, folder)?;
        Ok(Tokenizer(tokenizer))
    }

    /// The ids of a text's tokens.
    pub fn encode(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let encoded = Panics::caught(|| self.0.encode(text, false));
        let encoded =
            encoded.map_err(|message| anyhow!("the prompt: the tokenizer failed: {message}"))?;
        let encoded = encoded.map_err(|error| anyhow!("the prompt: {error}"))?;
        Ok(encoded.get_ids().to_vec())
    }

    /// The text of tokens; what is not whole ends in U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let decoded = Panics::caught(|| self.0.decode(ids, false));
        decoded.map(Result::unwrap_or_default).unwrap_or_default()
    }
}

/// Whether this is one file of two.
fn is_of_a_pair(path: &Path) -> bool {
    let mut names = PAIRS.iter().flatten();
    !path.is_dir() && names.any(|name| path.file_name() == Some(OsStr::new(name)))
}

/// The folder of several files: the path itself, or that of one of them.
fn folder_of(path: &Path) -> &Path {
    match is_of_a_pair(path) {
        true => path.parent().unwrap_or(Path::new("")),
        false => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of a few bytes, two merges, and the mark of a text's end, as GPT-2 has it.
    fn files(names: [&str; 2], more: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let words = [
            "a",
            "b",
            "c",
            "<",
            ">",
            "|",
            "e",
            "n",
            "d",
            "o",
            "f",
            "t",
            "x",
            "Ġ",
            "ab",
            "Ġc",
            "<|endoftext|>",
            "z",
        ];
        let vocabulary: std::collections::BTreeMap<&str, usize> = words
            .iter()
            .enumerate()
            .map(|(id, word)| (*word, id))
            .collect();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(names[0], &serde_json::to_string(&vocabulary).unwrap());
        write(names[1], "#version: 0.2\na b\nĠ c\n");
        more.iter().for_each(|(name, text)| write(name, text));
        folder
    }

    fn encode(folder: &Path, text: &str) -> Vec<u32> {
        Tokenizer::read(folder).unwrap().encode(text).unwrap()
    }

    #[test]
    fn the_mark_of_a_texts_end_is_one_token_in_either_pair_of_files() {
        for names in PAIRS {
            let folder = files(names, &[]);
            let expected = [14, 16, 15];
            assert_eq!(encode(folder.path(), "ab<|endoftext|> c"), expected);
            for name in names {
                assert_eq!(
                    encode(&folder.path().join(name), "ab<|endoftext|> c"),
                    expected
                );
            }
            let tokenizer = Tokenizer::read(folder.path()).unwrap();
            assert_eq!(tokenizer.decode(&[16, 14]), "<|endoftext|>ab");
        }
    }

    #[test]
    fn added_tokens_are_one_id_each_whichever_file_tells_of_them() {
        let told = [
            ("added_tokens.json", r#"{"<sep>": 18}"#),
            (
                "special_tokens_map.json",
                r#"{"pad_token": {"content": "<sep>"}, "additional_special_tokens": ["<sep>"]}"#,
            ),
            (
                "tokenizer_config.json",
                r#"{"added_tokens_decoder": {"18": {"content": "<sep>", "special": true}}, "model_max_length": 5}"#,
            ),
            (
                "tokenizer_config.json",
                r#"{"eos_token": {"__type": "AddedToken", "content": "<sep>"}}"#,
            ),
        ];
        for file in told {
            let folder = files(PAIRS[0], &[file]);
            assert_eq!(encode(folder.path(), "a<sep>b"), [0, 18, 1], "{file:?}");
        }
        // A space that belongs to the token.
        let strips = r#"{"added_tokens_decoder": {"18": {"content": "<sep>", "lstrip": true}}}"#;
        let folder = files(PAIRS[0], &[("tokenizer_config.json", strips)]);
        assert_eq!(encode(folder.path(), "a <sep>b"), [0, 18, 1]);
        let prefix = files(
            PAIRS[0],
            &[("tokenizer_config.json", r#"{"add_prefix_space": true}"#)],
        );
        assert_eq!(encode(prefix.path(), "c"), [15]);
    }

    #[test]
    fn added_tokens_that_cannot_be_right_are_refused_by_their_file() {
        for (file, text, expected) in [
            ("added_tokens.json", r#"{"<sep>": 40}"#, "`<sep>` has id 40"),
            ("added_tokens.json", r#"{"ab": 3}"#, "`ab` has id 3"),
            ("special_tokens_map.json", "{,", "special_tokens_map.json"),
            (
                "tokenizer_config.json",
                r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#,
                "`x`",
            ),
        ] {
            let folder = files(PAIRS[0], &[(file, text)]);
            let error = format!("{:#}", Tokenizer::read(folder.path()).err().unwrap());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_prompt_is_neither_padded_nor_cut_off_whatever_the_file_says() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "decoder": null,
            "truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 100000000000}, "direction": "Right", "pad_to_multiple_of": null,
                        "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}"#;
        std::fs::write(folder.path().join("tokenizer.json"), text).unwrap();
        assert_eq!(encode(folder.path(), "ab"), [0, 1]);
    }

    #[test]
    fn the_same_prompt_is_the_same_tokens_whatever_chance_a_file_asks_for() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "decoder": null, "truncation": null, "padding": null,
            "model": {"type": "BPE", "dropout": 1.0, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}"#;
        std::fs::write(folder.path().join("tokenizer.json"), text).unwrap();
        assert_eq!(encode(folder.path(), "ab"), [2]);
    }

    #[test]
    #[cfg(unix)]
    fn what_is_there_and_cannot_be_read_is_not_taken_for_absent() {
        for (name, expected) in [
            ("tokenizer_config.json", "tokenizer_config.json"),
            ("added_tokens.json", "added_tokens.json"),
            ("tokenizer.json", "tokenizer.json"),
        ] {
            let folder = files(PAIRS[0], &[]);
            std::os::unix::fs::symlink("nowhere", folder.path().join(name)).unwrap();
            let error = format!("{:#}", Tokenizer::read(folder.path()).err().unwrap());
            assert!(error.contains(expected), "{error}");
        }
        let folder = files(PAIRS[0], &[]);
        std::fs::write(folder.path().join("merges.txt"), "").unwrap();
        let error = format!("{:#}", Tokenizer::read(folder.path()).err().unwrap());
        assert!(error.contains("merges.txt: is empty"), "{error}");
    }

    #[test]
    fn a_folder_without_a_tokenizer_is_told_what_is_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let error = Tokenizer::read(folder.path()).err().unwrap().to_string();
        assert!(
            error.contains("merges.txt") && error.contains("encoder.json"),
            "{error}"
        );
    }
}

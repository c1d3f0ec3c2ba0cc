//! Tokens that a text is searched for before it is split into byte pairs. Beside `vocab.json` they are told in up to three
//! files, none of which need be there.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::AddedToken;

use super::pipeline::MOST_ADDED;
use crate::json;

/// Some thousand tokens, and what a chat is written as.
const MAX_BYTES: u64 = 8 << 20;

/// The mark of a text's end: part of GPT-2's vocabulary, and told in none of the files of some.
const END_OF_TEXT: &str = "<|endoftext|>";
const MAP: &str = "special_tokens_map.json";
const CONFIGURATION: &str = "tokenizer_config.json";
const ADDED: &str = "added_tokens.json";

/// What the files tell.
pub struct Added {
    /// Whether a text is taken to begin with a space.
    pub prefix_space: bool,
    /// By their ids.
    numbered: BTreeMap<u32, Token>,
    /// Those of which no file tells the id: the vocabulary does, or they get the next.
    unnumbered: Vec<Token>,
}

#[derive(Debug, Clone, Deserialize)]
struct Token {
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
}

impl Token {
    fn plain(content: &str) -> Token {
        Token {
            content: content.to_owned(),
            lstrip: false,
            rstrip: false,
            single_word: false,
        }
    }

    /// A text, or an object that says how it is found in one; anything else names no token.
    fn of(value: &Value) -> Option<Token> {
        match value {
            Value::String(content) => Some(Token::plain(content)),
            value => Token::deserialize(value).ok(),
        }
    }

    fn as_added(&self) -> AddedToken {
        AddedToken::from(self.content.clone(), true)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .single_word(self.single_word)
    }
}

#[derive(Default, Deserialize)]
struct Configuration {
    #[serde(default)]
    add_prefix_space: bool,
    #[serde(default)]
    added_tokens_decoder: BTreeMap<String, Token>,
    /// Among much else `bos_token`, `eos_token` and so on.
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// Reads what lies in the folder.
pub fn read(folder: &Path) -> anyhow::Result<Added> {
    let configuration: Configuration = file(folder, CONFIGURATION)?.unwrap_or_default();
    let map: BTreeMap<String, Value> = file(folder, MAP)?.unwrap_or_default();
    let ids: BTreeMap<String, u32> = file(folder, ADDED)?.unwrap_or_default();
    let mut numbered: BTreeMap<u32, Token> = ids
        .iter()
        .map(|(content, id)| (*id, Token::plain(content)))
        .collect();
    for (id, token) in configuration.added_tokens_decoder {
        let number = id.parse().with_context(|| {
            let path = folder.join(CONFIGURATION);
            format!(
                "{}: `{id}` in added_tokens_decoder is no id",
                path.display()
            )
        })?;
        numbered.insert(number, token);
    }
    let mut unnumbered = vec![];
    for (name, value) in map.iter().chain(&configuration.rest) {
        match name.as_str() {
            "additional_special_tokens" => {
                let several = value.as_array().map_or(&[][..], Vec::as_slice);
                unnumbered.extend(several.iter().filter_map(Token::of));
            }
            name if name.ends_with("_token") => unnumbered.extend(Token::of(value)),
            _ => {}
        }
    }
    let all = numbered.len() + unnumbered.len();
    ensure!(
        all <= MOST_ADDED,
        "{}: {all} tokens are added, and at most {MOST_ADDED} are read",
        folder.display()
    );
    Ok(Added {
        prefix_space: configuration.add_prefix_space,
        numbered,
        unnumbered,
    })
}

/// A file of the folder, where it is there.
fn file<T: DeserializeOwned>(folder: &Path, name: &str) -> anyhow::Result<Option<T>> {
    let path = folder.join(name);
    if !checkpoint::is_there(&path) {
        return Ok(None);
    }
    json::read(&path, MAX_BYTES).map(Some)
}

impl Added {
    /// Adds them: in the order of their ids, as a tokenizer numbers them on.
    pub fn add_to(
        self,
        tokenizer: &mut tokenizers::Tokenizer,
        folder: &Path,
    ) -> anyhow::Result<()> {
        for (id, token) in &self.numbered {
            tokenizer.add_special_tokens(&[token.as_added()]);
            let found = tokenizer.token_to_id(&token.content);
            ensure!(
                found == Some(*id),
                "{}: an added token `{}` has id {id}, and by the vocabulary it would have {}",
                folder.display(),
                token.content,
                found.map_or("none".to_owned(), |id| id.to_string())
            );
        }
        let mut told: HashSet<&str> = self.numbered.values().map(|one| &*one.content).collect();
        for token in &self.unnumbered {
            if told.insert(&token.content) {
                tokenizer.add_special_tokens(&[token.as_added()]);
            }
        }
        if tokenizer.token_to_id(END_OF_TEXT).is_some() && told.insert(END_OF_TEXT) {
            tokenizer.add_special_tokens(&[AddedToken::from(END_OF_TEXT, true)]);
        }
        Ok(())
    }
}

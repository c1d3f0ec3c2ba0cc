//! In the place of `tokenizer`, in a program that was built without it.

use std::path::Path;

use crate::exit::Ended;

/// There is none.
pub enum Tokenizer {}

impl Tokenizer {
    pub fn read(_path: &Path) -> anyhow::Result<Tokenizer> {
        let message = "--tokenizer: this program was built without tokenizers: build it with the feature `text`, as \
                       `just build` does; or give token ids with --tokens";
        Err(Ended::Usage(message.to_owned()).into())
    }

    pub fn encode(&self, _text: &str) -> anyhow::Result<Vec<u32>> {
        match *self {}
    }

    pub fn decode(&self, _ids: &[u32]) -> String {
        match *self {}
    }
}

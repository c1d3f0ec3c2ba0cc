//! GPT-2's tokenizer, from the vocabulary files of whoever trained the model.

use std::path::Path;

use anyhow::{anyhow, bail};
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// Text to token ids, and back.
pub struct Tokenizer(tokenizers::Tokenizer);

impl Tokenizer {
    /// Reads `tokenizer.json`, or a folder with that file or with `vocab.json` and `merges.txt`.
    pub fn read(path: &Path) -> anyhow::Result<Tokenizer> {
        let whole = match path.is_dir() {
            true => path.join("tokenizer.json"),
            false => path.to_owned(),
        };
        let wrong =
            |error: tokenizers::Error| anyhow!("{}: is no tokenizer: {error}", path.display());
        if whole.exists() {
            let read = tokenizers::Tokenizer::from_file(whole).map_err(wrong)?;
            return Ok(Tokenizer(read));
        }
        let [vocabulary, merges] = ["vocab.json", "merges.txt"].map(|name| path.join(name));
        if !vocabulary.exists() || !merges.exists() {
            bail!(
                "{}: holds neither tokenizer.json nor vocab.json and merges.txt: GPT-2's are on its page on the Hugging Face hub",
                path.display()
            );
        }
        let model = BPE::from_file(&vocabulary.to_string_lossy(), &merges.to_string_lossy());
        let mut tokenizer = tokenizers::Tokenizer::new(model.build().map_err(wrong)?);
        let bytes = ByteLevel::default().add_prefix_space(false);
        tokenizer.with_pre_tokenizer(Some(bytes));
        tokenizer.with_decoder(Some(bytes));
        Ok(Tokenizer(tokenizer))
    }

    /// The ids of a text's tokens.
    pub fn encode(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let encoded = self.0.encode(text, false);
        let encoded = encoded.map_err(|error| anyhow!("the prompt: {error}"))?;
        Ok(encoded.get_ids().to_vec())
    }

    /// The text of tokens; what is not whole ends in U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.0.decode(ids, false).unwrap_or_default()
    }
}

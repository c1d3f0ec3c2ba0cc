//! GPT-2's tokenizer, from the vocabulary files of whoever trained the model.

use std::path::Path;

use anyhow::{anyhow, bail};
use tokenizers::Tokenizer;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// Reads `tokenizer.json`, or a folder with that file or with `vocab.json` and `merges.txt`.
pub fn read(path: &Path) -> anyhow::Result<Tokenizer> {
    let whole = match path.is_dir() {
        true => path.join("tokenizer.json"),
        false => path.to_owned(),
    };
    let wrong = |error: tokenizers::Error| anyhow!("{}: is no tokenizer: {error}", path.display());
    if whole.exists() {
        return Tokenizer::from_file(whole).map_err(wrong);
    }
    let [vocabulary, merges] = ["vocab.json", "merges.txt"].map(|name| path.join(name));
    if !vocabulary.exists() || !merges.exists() {
        bail!(
            "{}: holds neither tokenizer.json nor vocab.json and merges.txt: GPT-2's are on its page on the Hugging Face hub",
            path.display()
        );
    }
    let model = BPE::from_file(&vocabulary.to_string_lossy(), &merges.to_string_lossy());
    let mut tokenizer = Tokenizer::new(model.build().map_err(wrong)?);
    let bytes = ByteLevel::default().add_prefix_space(false);
    tokenizer.with_pre_tokenizer(Some(bytes));
    tokenizer.with_decoder(Some(bytes));
    Ok(tokenizer)
}

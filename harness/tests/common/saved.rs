//! Small checkpoints as PyTorch and transformers saved them, of every format and layout, with what they compute. They are made
//! by `fixtures/make.py`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// What PyTorch made of a fixture.
#[derive(Deserialize)]
pub struct Case {
    pub size: String,
    pub dtype: String,
    pub tokens: Vec<u32>,
    /// Options that it is loaded with.
    #[serde(default)]
    pub args: Vec<String>,
}

/// Every fixture: its folder, the checkpoint in it, and what PyTorch made of it.
pub fn cases() -> Vec<(PathBuf, PathBuf, Case)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let folders = std::fs::read_dir(root).unwrap().flatten();
    let folders = folders
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    let mut cases: Vec<_> = folders
        .map(|folder| {
            let case = std::fs::read(folder.join("case.json")).unwrap();
            let case = serde_json::from_slice(&case).unwrap();
            (folder.clone(), checkpoint_in(&folder), case)
        })
        .collect();
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(cases.len() >= 10, "the fixtures are there");
    cases
}

/// The fixture of this name.
pub fn case(name: &str) -> (PathBuf, PathBuf, Case) {
    let mut cases = cases().into_iter();
    cases.find(|(folder, ..)| folder.ends_with(name)).unwrap()
}

/// One file, or the index of several.
fn checkpoint_in(folder: &Path) -> PathBuf {
    let names = [
        "model.safetensors.index.json",
        "pytorch_model.bin.index.json",
        "model.safetensors",
        "pytorch_model.bin",
        "model.pth",
        "model.pt",
        "checkpoint.pt",
    ];
    let mut paths = names.iter().map(|name| folder.join(name));
    paths.find(|path| path.exists()).unwrap()
}

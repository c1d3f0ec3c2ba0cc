//! The parsers of what people write or download, each for bytes of any kind: it ends with a value or an error, soon, and takes no more
//! memory than the bytes ask for. Fuzz targets and the replay of their corpus call these.

use std::collections::BTreeMap;
use std::path::Path;

use gpt2::Size;
use gpt2::layout::{Layouts, Reading};

use crate::checkpoints::configuration;
use crate::manifest::Manifest;
use crate::summary::Spoilt;
use crate::{external, plan, record, summary, table};

/// A parser, by the name of its fuzz target.
pub struct Parser {
    pub name: &'static str,
    pub parse: fn(&[u8]),
}

/// All of them.
pub const ALL: &[Parser] = &[
    Parser {
        name: "manifest",
        parse: manifest,
    },
    Parser {
        name: "rows",
        parse: rows,
    },
    Parser {
        name: "heard",
        parse: heard,
    },
    Parser {
        name: "configuration",
        parse: configuration,
    },
    Parser {
        name: "layout",
        parse: layout,
    },
    #[cfg(feature = "text")]
    Parser {
        name: "tokenizer",
        parse: tokenizer,
    },
];

fn manifest(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(manifest) = Manifest::parse("fuzzed".to_owned(), "fuzzed.toml", &text) {
        let _ = plan::check_size(&manifest, &[]);
    }
}

/// Rows, and the tables that are made of them.
fn rows(bytes: &[u8]) {
    if let Ok(rows) = record::read(bytes, Path::new("runs.csv"), &BTreeMap::new()) {
        let lines = summary::summarise(&rows.records, Spoilt::LeftOut);
        let _ = (table::markdown(&lines), table::terminal(&lines));
    }
}

/// A line of an external command.
fn heard(bytes: &[u8]) {
    let _ = external::is_understood(&String::from_utf8_lossy(bytes));
}

/// A `config.json`.
fn configuration(bytes: &[u8]) {
    beside("config.json", bytes, |path| {
        let folder = path.parent().expect("it lies in a folder");
        let _ = configuration::check_beside(folder, &Size::Small.config(), &[]);
    });
}

fn layout(bytes: &[u8]) {
    beside("layout.toml", bytes, |path| {
        let _ = Layouts::of(&Reading {
            layout: Some(path.to_owned()),
            key: None,
        });
    });
}

#[cfg(feature = "text")]
fn tokenizer(bytes: &[u8]) {
    beside("tokenizer.json", bytes, |path| {
        if let Ok(tokenizer) = crate::tokenizer::Tokenizer::read(path)
            && let Ok(ids) = tokenizer.encode("Hello, world: 123")
        {
            let _ = tokenizer.decode(&ids);
        }
    });
}

/// The bytes as a file of this name.
fn beside(name: &str, bytes: &[u8], parse: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a temporary file can be written");
    parse(&path);
}

//! What a Markdown file says of files: its links and pictures that lead to files beside it, and the sources that it names.

use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Parser, Tag};

/// Those relative links of a text that lead nowhere, seen from the folder that it lies in.
pub fn broken(text: &str, folder: &Path) -> Vec<PathBuf> {
    let targets = Parser::new(text).filter_map(|event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url),
        _ => None,
    });
    let relative = targets.filter_map(|target| {
        let file = target.split(['#', '?']).next().unwrap_or_default();
        // `https://…` and `mailto:…` are somebody else's, `#part` is in the text itself.
        let is_elsewhere = target
            .split('/')
            .next()
            .is_some_and(|start| start.contains(':'));
        (!is_elsewhere && !file.is_empty()).then(|| PathBuf::from(file))
    });
    relative
        .filter(|file| !folder.join(file).exists())
        .collect()
}

/// Where the checkout's sources lie, which texts name in code (`crates/…`).
const SOURCES: [&str; 6] = [
    "crates",
    "examples",
    "experiments",
    "fuzz",
    "harness",
    "scripts",
];

/// Those sources named in code that are not there, seen from the checkout.
pub fn missing_sources(text: &str, root: &Path) -> Vec<PathBuf> {
    let named = Parser::new(text).filter_map(|event| match event {
        Event::Code(code) => Some(code),
        _ => None,
    });
    let is_source = |code: &str| {
        let is_path = |one: char| one.is_alphanumeric() || "/._-".contains(one);
        let parts = code.split_once('/');
        parts.is_some_and(|(first, _)| SOURCES.contains(&first)) && code.chars().all(is_path)
    };
    named
        .filter(|code| is_source(code) && !root.join(&**code).exists())
        .map(|code| PathBuf::from(&*code))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_is_found_and_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("there.svg"), "").unwrap();
        let text = "[a](there.svg#part) ![b](there.svg) [c](https://example.org/x) [d](#part) [e](mailto:a@b.c)\n\n\
                    ![f](gone.svg) [g](no/such/folder) `[h](code)`";
        let expected = ["gone.svg", "no/such/folder"].map(PathBuf::from);
        assert_eq!(broken(text, folder.path()), expected);
    }

    #[test]
    fn a_source_that_a_text_names_and_that_is_gone_is_found_and_other_code_left_alone() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("crates/there/src")).unwrap();
        let text = "`crates/there` `crates/there/src/gone.rs` `crates/NAME/src: x` `a/b` `target/release/harness` crates/not/code";
        let expected = [PathBuf::from("crates/there/src/gone.rs")];
        assert_eq!(missing_sources(text, root.path()), expected);
    }
}

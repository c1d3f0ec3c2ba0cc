//! The links and pictures of a Markdown file that lead to files beside it.

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
}

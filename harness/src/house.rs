//! The manifests that come with the harness, found by their name: those of the checkout, from any folder of it, or those
//! that the program was built with where there is no checkout.

use std::fmt::Write;
use std::path::{Component, Path};

use checkpoint::read_text;

use crate::checkout;
use crate::exit::Ended;
use crate::manifest::{MAX_BYTES, Manifest};
use crate::suggest::did_you_mean;

/// Name and text of each, as they were when the program was built.
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/manifests.rs"));

/// A manifest of the house: its name, and what it is for.
pub struct Known {
    pub name: String,
    pub about: String,
}

/// Reads and checks a manifest: a file, or one of the house by its name.
pub fn load(given: &Path) -> anyhow::Result<Manifest> {
    let name = name_of(given).filter(|_| !given.is_file());
    let Some(name) = name else {
        return Manifest::load(given);
    };
    let built_in = || BUILT_IN.iter().find(|(known, _)| *known == name);
    match checkout::manifests() {
        Some(folder) => {
            let file = folder.join(format!("{name}.toml"));
            if file.is_file() {
                return Manifest::load(&file);
            }
        }
        None => {
            if let Some((_, text)) = built_in() {
                let shown = format!("{name} (built in)");
                return Ok(Manifest::parse(name, &shown, text).map_err(Ended::Usage)?);
            }
        }
    }
    match given.extension() {
        // It reads as a file: the message says that it cannot be read.
        Some(_) => Manifest::load(given),
        None => Err(Ended::Usage(unknown(&name, &known())).into()),
    }
}

/// The name that a word on the command line could be: `quick`, or `quick.toml`.
fn name_of(given: &Path) -> Option<String> {
    let mut parts = given.components();
    let (Some(Component::Normal(_)), None) = (parts.next(), parts.next()) else {
        return None;
    };
    let extension = given.extension();
    if extension.is_some_and(|extension| extension != "toml") {
        return None;
    }
    Some(given.file_stem()?.to_str()?.to_owned())
}

/// All of them, by name.
pub fn known() -> Vec<Known> {
    let Some(folder) = checkout::manifests() else {
        let built_in = BUILT_IN.iter();
        return built_in.map(|(name, text)| Known::of(name, text)).collect();
    };
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut known: Vec<Known> = files
        .filter_map(|file| {
            let path = file.path();
            let name = path.file_stem()?.to_str()?;
            let is_manifest = path
                .extension()
                .is_some_and(|extension| extension == "toml");
            let text = read_text(&path, MAX_BYTES).ok().filter(|_| is_manifest)?;
            Some(Known::of(name, &text))
        })
        .collect();
    known.sort_by(|a, b| a.name.cmp(&b.name));
    known
}

impl Known {
    fn of(name: &str, text: &str) -> Known {
        Known {
            name: name.to_owned(),
            about: first_sentence(text),
        }
    }
}

/// The first sentence of the comment that a manifest begins with.
fn first_sentence(text: &str) -> String {
    let comment = text.lines().map_while(|line| line.strip_prefix('#'));
    let lines: Vec<&str> = comment
        .map(str::trim)
        .take_while(|l| !l.is_empty())
        .collect();
    let comment = lines.join(" ");
    let end = comment.find(". ").map_or(comment.len(), |end| end + 1);
    comment[..end].to_owned()
}

fn unknown(name: &str, known: &[Known]) -> String {
    let near = did_you_mean(name, known.iter().map(|known| &*known.name));
    let mut message = format!("no manifest is called `{name}`{near}");
    let width = known.iter().map(|known| known.name.len()).max();
    let width = width.unwrap_or_default();
    for Known { name, about } in known {
        write!(message, "\n  {name:width$}  {about}").expect("a string grows");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_of_the_house_is_built_in_and_says_what_it_is_for() {
        for (name, text) in BUILT_IN {
            assert!(!first_sentence(text).is_empty(), "{name}");
        }
        assert!(BUILT_IN.iter().any(|(name, _)| *name == "reproduce"));
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
        assert_eq!(BUILT_IN.len(), std::fs::read_dir(folder).unwrap().count());
    }

    #[test]
    fn a_name_is_told_from_a_path() {
        assert_eq!(name_of(Path::new("quick")).as_deref(), Some("quick"));
        assert_eq!(name_of(Path::new("quick.toml")).as_deref(), Some("quick"));
        for path in ["./quick", "a/quick.toml", "/quick", "..", "quick.csv"] {
            assert_eq!(name_of(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_one_and_the_list_of_all() {
        let known: Vec<_> = BUILT_IN.iter().map(|(n, t)| Known::of(n, t)).collect();
        let message = unknown("quik", &known);
        let start = "no manifest is called `quik`; did you mean `quick`?\n";
        assert!(message.starts_with(start), "{message}");
        assert!(message.contains("  quick      A look at everything: one repeat of"));
    }
}

//! Words of a manifest: parsed, with what a person is told of a wrong one.

use std::ops::Range;
use std::str::FromStr;

use gpt2::Size;
use lab::DeviceSpec;
use toml::Spanned;

use crate::registry;
use crate::suggest::did_you_mean;

/// Any word whose error is a sentence.
pub fn parse<T: FromStr<Err = String>>(text: &str) -> Result<T, String> {
    text.parse()
}

/// A size by name, with the nearest valid one where it is none.
pub fn parse_size(text: &str) -> Result<Size, String> {
    let named = Size::NAMED.map(|size| size.to_string());
    let near = did_you_mean(text, named.iter().map(String::as_str));
    text.parse().map_err(|error| format!("{error}{near}"))
}

/// A device by name, with the nearest valid one where it is none.
pub fn parse_device(text: &str) -> Result<DeviceSpec, String> {
    let near = did_you_mean(text, ["auto", "flex", "vulkan", "cuda"]);
    text.parse().map_err(|error| format!("{error}{near}"))
}

/// The names of all experiments.
pub fn experiment_names() -> impl Iterator<Item = &'static str> {
    registry::all().map(|experiment| experiment.name)
}

/// What is said of an experiment that is none of the `known` ones.
pub fn unknown_experiment<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    match registry::left_out(name) {
        Some(feature) => format!(
            "this program was built without the experiment `{name}`: build it with the feature `{feature}`, as \
             `just build` does"
        ),
        None => unknown("experiment", name, known),
    }
}

/// What is said of an unknown word.
pub fn unknown<'a>(what: &str, word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.collect();
    let near = did_you_mean(word, known.iter().copied());
    format!(
        "unknown {what} `{word}`{near} (known: {})",
        known.join(", ")
    )
}

/// Each word of a list parsed; none twice, and not none at all.
pub fn checked<T: PartialEq>(
    words: &[Spanned<String>],
    parse: impl Fn(&str) -> Result<T, String>,
    at: &impl Fn(Range<usize>, String) -> String,
) -> Result<Vec<T>, String> {
    let mut values = Vec::with_capacity(words.len());
    for word in words {
        let value = parse(word.get_ref()).map_err(|message| at(word.span(), message))?;
        if values.contains(&value) {
            return Err(at(
                word.span(),
                format!("`{}` stands here twice", word.get_ref()),
            ));
        }
        values.push(value);
    }
    match values.is_empty() {
        // The list's own place is not known; the table's keys are few.
        true => Err(at(
            0..0,
            "a list in [matrix] is empty: there is nothing to run".to_owned(),
        )),
        false => Ok(values),
    }
}

/// Adds the nearest valid key to serde's message about an unknown one.
pub fn explain(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next() {
        Some(word) if message.starts_with("unknown field") => {
            let known: Vec<_> = quoted.collect();
            let near = did_you_mean(word, known.iter().copied());
            format!("unknown key `{word}`{near} (known: {})", known.join(", "))
        }
        Some(word) if message.starts_with("unknown variant") => {
            let known: Vec<_> = quoted.collect();
            let near = did_you_mean(word, known.iter().copied());
            format!("unknown value `{word}`{near} (known: {})", known.join(", "))
        }
        _ => message.to_owned(),
    }
}

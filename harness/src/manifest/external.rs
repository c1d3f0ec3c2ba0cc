//! `[[external]]`: commands in other languages and frameworks.
//!
//! ```toml
//! [[external]]
//! name = "pytorch:naive"
//! summary = "what it does, in a sentence"
//! command = ["python3", "load.py", "naive"]
//! setup = ["./install"]       # run once before anything is measured; may be left out
//! format = "pth"              # what it reads; safetensors where it is left out
//! sizes = ["medium"]          # at which of the manifest's sizes; all where it is left out
//! devices = ["flex"]          # beside which of our devices it stands; the host's memory where it is left out
//! ```

use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::words::{checked, parse, parse_device, parse_size};
use crate::external::External;
use crate::registry;

/// A command as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalTable {
    name: Spanned<String>,
    #[serde(default)]
    summary: String,
    command: Spanned<Vec<String>>,
    #[serde(default)]
    setup: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    format: Option<Spanned<String>>,
    #[serde(default)]
    devices: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    sizes: Option<Vec<Spanned<String>>>,
}

/// All of a manifest's, checked: each has a name of its own, and a command.
pub fn check_all(
    tables: Vec<ExternalTable>,
    at: &impl Fn(Range<usize>, String) -> String,
) -> Result<Vec<Arc<External>>, String> {
    let mut externals: Vec<Arc<External>> = Vec::with_capacity(tables.len());
    for table in tables {
        let span = table.name.span();
        let external = table.check(at)?;
        let is_taken = registry::find(&external.name).is_some()
            || externals.iter().any(|other| other.name == external.name);
        if is_taken {
            let message = format!("`{}` is the name of another experiment", external.name);
            return Err(at(span, message));
        }
        externals.push(Arc::new(external));
    }
    Ok(externals)
}

impl ExternalTable {
    fn check(self, at: &impl Fn(Range<usize>, String) -> String) -> Result<External, String> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_:".contains(c);
        let name = self.name.get_ref();
        if name.is_empty() || !name.chars().all(is_word) {
            let message = format!("`{name}` is no name: use letters, digits, and - _ :");
            return Err(at(self.name.span(), message));
        }
        for command in std::iter::once(&self.command).chain(&self.setup) {
            if command.get_ref().is_empty() {
                let message =
                    "a command is a program and its arguments: [\"python3\", \"load.py\"]";
                return Err(at(command.span(), message.to_owned()));
            }
        }
        let format = match &self.format {
            None => checkpoint::Format::Safetensors,
            Some(format) => {
                parse(format.get_ref()).map_err(|message| at(format.span(), message))?
            }
        };
        let devices = match &self.devices {
            None => vec!["flex".parse().expect("flex is a device")],
            Some(devices) => checked(devices, parse_device, at)?,
        };
        let sizes = self.sizes.as_deref();
        let sizes = sizes.map(|sizes| checked(sizes, parse_size, at));
        Ok(External {
            name: self.name.into_inner(),
            summary: self.summary,
            command: self.command.into_inner(),
            setup: self.setup.map(Spanned::into_inner),
            format,
            devices,
            sizes: sizes.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::manifest::Manifest;

    fn parse(text: &str) -> Result<Manifest, String> {
        let text =
            format!("[matrix]\nexperiments = ['all']\nsizes = ['small']\n[[external]]\n{text}\n");
        Manifest::parse("test".to_owned(), "test.toml", &text)
    }

    #[test]
    fn a_command_stands_beside_the_experiments_on_its_devices_and_in_claims() {
        let manifest = parse(
            "name = 'torch:naive'\ncommand = ['python3', 'x.py']\nsizes = ['small']\n[[claims]]\nsentence = 's'\n\
             value = '{torch:naive.load_seconds} / {naive.load_seconds}'\nat_least = 0",
        )
        .unwrap();
        let names = |device: &str, size: &str| {
            let (device, size) = (device.parse().unwrap(), size.parse().unwrap());
            let techniques = manifest.techniques_on(device, size);
            techniques
                .filter(|technique| technique.name() == "torch:naive")
                .count()
        };
        assert_eq!((names("flex", "small"), names("vulkan", "small")), (1, 0));
        assert_eq!(names("flex", "medium"), 0);
        assert!(manifest.names().contains(&"torch:naive"));
    }

    #[test]
    fn a_wrong_command_is_refused_with_its_line() {
        let cases = [
            (
                "name = 'naive'\ncommand = ['x']",
                ":5: `naive` is the name of another",
            ),
            ("name = 'a b'\ncommand = ['x']", ":5: `a b` is no name"),
            ("name = 'a'\ncommand = []", ":6: a command is a program"),
            (
                "name = 'a'\ncommand = ['x']\nformat = 'zip'",
                ":7: unknown format",
            ),
            (
                "name = 'a'\ncommand = ['x']\nsetups = ['x']",
                "did you mean `setup`?",
            ),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(expected),
                "{error}\nshould contain {expected}"
            );
        }
    }
}

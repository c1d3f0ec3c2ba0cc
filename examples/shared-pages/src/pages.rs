//! What this process's memory consists of, by `/proc/self/smaps`.

use std::path::Path;

use anyhow::{Context, Result};

/// In bytes.
#[derive(Default)]
pub struct Pages {
    /// Of pages that no other process has.
    pub private: u64,
    /// Of pages that others have, too.
    pub shared: u64,
    /// Of all pages, each divided by the number of processes that have it: the proportional set size.
    pub proportional: u64,
}

impl Pages {
    /// All of them.
    pub fn of_process() -> Result<Pages> {
        Pages::of(|_| true)
    }

    /// Those of a mapped file.
    pub fn of_file(path: &Path) -> Result<Pages> {
        let path = path.canonicalize()?;
        let path = path.to_str().context("a path that is no text")?;
        Pages::of(|mapping| mapping.ends_with(path))
    }

    /// Those of mappings of which the first lines are these.
    fn of(is_wanted: impl Fn(&str) -> bool) -> Result<Pages> {
        let source = "/proc/self/smaps";
        let text = std::fs::read_to_string(source).context(source)?;
        let (mut pages, mut is_within) = (Pages::default(), false);
        for line in text.lines() {
            // `7f00-7f10 r--p 00000000 fe:00 131  /path`, and below it lines such as `Private_Dirty:      1234 kB`.
            let mut words = line.split_whitespace();
            let Some(name) = words.next().and_then(|word| word.strip_suffix(':')) else {
                is_within = is_wanted(line);
                continue;
            };
            let kib: u64 = words
                .next()
                .and_then(|kib| kib.parse().ok())
                .unwrap_or_default();
            let sum = match name {
                "Private_Clean" | "Private_Dirty" => &mut pages.private,
                "Shared_Clean" | "Shared_Dirty" => &mut pages.shared,
                "Pss" => &mut pages.proportional,
                _ => continue,
            };
            if is_within {
                *sum += kib * 1024;
            }
        }
        Ok(pages)
    }
}

//! What this process's memory consists of.

use anyhow::{Context, Result};

/// In bytes.
pub struct Pages {
    /// Of pages that no other process has.
    pub private: u64,
    /// Of pages that others have, too.
    pub shared: u64,
    /// Of all pages, each divided by the number of processes that have it.
    pub proportional: u64,
}

impl Pages {
    pub fn now() -> Result<Pages> {
        let path = "/proc/self/smaps_rollup";
        let text = std::fs::read_to_string(path).context(path)?;
        // Lines such as `Private_Dirty:      1234 kB`.
        let bytes = |name: &str| {
            let kib = text.lines().find_map(|line| {
                let value = line.strip_prefix(name)?.strip_prefix(':')?;
                value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
            });
            Ok::<_, anyhow::Error>(kib.with_context(|| format!("{path}: no {name}"))? * 1024)
        };
        Ok(Pages {
            private: bytes("Private_Clean")? + bytes("Private_Dirty")?,
            shared: bytes("Shared_Clean")? + bytes("Shared_Dirty")?,
            proportional: bytes("Pss")?,
        })
    }
}

//! `[tuning]`: what techniques work with. What is left out has the default.
//!
//! ```toml
//! [tuning]
//! staging = "16MiB"       # what may be on its way to a device at once
//! threads = 2             # that read, or touch pages
//! queue_depth = 8         # reads in flight
//! resident_layers = 2     # on the device at once, where layers are streamed
//! ```

use std::ops::Range;

use lab::Tuning;
use serde::Deserialize;
use toml::Spanned;

use crate::units::ByteSize;

/// The table as written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct TuningTable {
    staging: Option<Spanned<ByteSize>>,
    threads: Option<Spanned<usize>>,
    queue_depth: Option<Spanned<usize>>,
    resident_layers: Option<Spanned<usize>>,
}

impl TuningTable {
    /// Checks it; `at` says where in the manifest something stands.
    pub fn check(self, at: &impl Fn(Range<usize>, String) -> String) -> Result<Tuning, String> {
        let default = Tuning::default();
        let count = |what: &str, value: Option<Spanned<usize>>, default| match value {
            None => Ok(default),
            Some(value) if (1..=1024).contains(value.get_ref()) => Ok(value.into_inner()),
            Some(value) => Err(at(value.span(), format!("{what} must be from 1 to 1024"))),
        };
        Ok(Tuning {
            staging_bytes: match self.staging {
                None => default.staging_bytes,
                // Pieces of a page each, or more.
                Some(bytes) if bytes.get_ref().0 >= 32768 => bytes.into_inner().0,
                Some(bytes) => {
                    return Err(at(
                        bytes.span(),
                        "staging must be at least 32 KiB".to_owned(),
                    ));
                }
            },
            threads: count("threads", self.threads, default.threads)?,
            queue_depth: count("queue_depth", self.queue_depth, default.queue_depth)?,
            resident_layers: count(
                "resident_layers",
                self.resident_layers,
                default.resident_layers,
            )?,
        })
    }
}

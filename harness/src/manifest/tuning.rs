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

use crate::number::{self, Number};
use crate::units::ByteSize;

/// The table as written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct TuningTable {
    staging: Option<Spanned<ByteSize>>,
    threads: Option<Spanned<u64>>,
    queue_depth: Option<Spanned<u64>>,
    resident_layers: Option<Spanned<u64>>,
}

impl TuningTable {
    /// Checks it; `at` says where in the manifest something stands.
    pub fn check(self, at: &impl Fn(Range<usize>, String) -> String) -> Result<Tuning, String> {
        let default = Tuning::default();
        let count =
            |number: &Number<u64>, value: Option<Spanned<u64>>, default| -> Result<usize, String> {
                match value {
                    None => Ok(default),
                    Some(value) => {
                        let counted = number.check(*value.get_ref());
                        let counted = counted.map_err(|message| at(value.span(), message))?;
                        Ok(counted as usize)
                    }
                }
            };
        Ok(Tuning {
            staging_bytes: match self.staging {
                None => default.staging_bytes,
                Some(bytes) => {
                    let checked = number::STAGING.check(bytes.get_ref().0);
                    checked.map_err(|message| at(bytes.span(), message))?
                }
            },
            threads: count(&number::THREADS, self.threads, default.threads)?,
            queue_depth: count(&number::QUEUE_DEPTH, self.queue_depth, default.queue_depth)?,
            resident_layers: count(
                &number::RESIDENT_LAYERS,
                self.resident_layers,
                default.resident_layers,
            )?,
        })
    }
}

//! What was loaded, by which way, and how many bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use burn::tensor::DType;
use checkpoint::{Dtype, quoted};

use crate::Way;

/// What a load did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The checkpoint.
    pub file: PathBuf,
    /// Every parameter that was loaded, in the module's order.
    pub loaded: Vec<Loaded>,
    /// Paths of parameters that stayed as they were: filtered out, or absent from a partial checkpoint.
    pub kept: Vec<String>,
    /// Tensors of the file that nobody asked for, where that was allowed, and counters.
    pub unused: Vec<String>,
    /// Seconds from the first look at the module to the last parameter on the device.
    pub seconds: f64,
}

/// A parameter that was loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Its path in the module.
    pub path: String,
    /// The tensor's name in the file.
    pub tensor: String,
    /// The parameter's shape.
    pub shape: Vec<usize>,
    /// The dtype in the file.
    pub stored: Dtype,
    /// The dtype in memory.
    pub dtype: DType,
    /// Bytes in memory, as quantised where it is; 0 where it shares another's.
    pub bytes: u64,
    /// How its bytes came there.
    pub way: Way,
    /// Whether rows and columns were exchanged on the way.
    pub is_transposed: bool,
    /// The path of the parameter that it is one with.
    pub same_as: Option<String>,
}

impl Report {
    /// Bytes of all that was loaded, in memory.
    pub fn bytes(&self) -> u64 {
        self.loaded.iter().map(|loaded| loaded.bytes).sum()
    }
}

/// More names than these are counted.
const MOST_NAMED: usize = 5;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.bytes() as f64 / f64::from(1 << 20);
        write!(
            f,
            "{}: loaded {} tensors, {mib:.1} MiB, in {:.3} s",
            self.file.display(),
            self.loaded.len(),
            self.seconds
        )?;
        let mut ways: BTreeMap<String, usize> = BTreeMap::new();
        let mut changes: BTreeMap<String, usize> = BTreeMap::new();
        for loaded in &self.loaded {
            match &loaded.same_as {
                Some(_) => *ways.entry("shared with another".to_owned()).or_default() += 1,
                None => *ways.entry(loaded.way.to_string()).or_default() += 1,
            }
            if loaded.is_transposed {
                *changes.entry("transposed".to_owned()).or_default() += 1;
            }
            if crate::change::burn_dtype(loaded.stored) != loaded.dtype
                && loaded.stored != Dtype::Bool
            {
                let change = format!("{} → {}", loaded.stored, loaded.dtype.name());
                *changes.entry(change).or_default() += 1;
            }
        }
        for (what, count) in ways.into_iter().chain(changes) {
            write!(f, "\n  {count:>5} {what}")?;
        }
        for (what, names) in [
            ("kept as they were", &self.kept),
            ("in the file alone", &self.unused),
        ] {
            if names.is_empty() {
                continue;
            }
            let named: Vec<String> = names
                .iter()
                .take(MOST_NAMED)
                .map(|name| quoted(name))
                .collect();
            write!(f, "\n  {:>5} {what}: {}", names.len(), named.join(", "))?;
            if names.len() > MOST_NAMED {
                f.write_str(", …")?;
            }
        }
        Ok(())
    }
}

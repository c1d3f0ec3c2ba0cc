//! Host caps as people write them: `none`, `1.5x` of the model's bytes, `512MiB`.

use std::fmt;
use std::str::FromStr;

use crate::number;
use crate::units::ByteSize;

/// How much host memory a run may use above its baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HostCap {
    /// As much as there is.
    None,
    /// Multiples of the model's bytes.
    Times(f64),
    /// So many bytes.
    Bytes(u64),
}

impl HostCap {
    /// The cap for a model of this size; `None` where there is none.
    pub fn bytes(self, model_bytes: u64) -> Option<u64> {
        match self {
            HostCap::None => None,
            HostCap::Times(times) => {
                const MIB: u64 = 1 << 20;
                let bytes = (times * model_bytes as f64) as u64;
                // In whole MiB, which read well, where that is near enough.
                Some(if bytes >= 64 * MIB {
                    bytes / MIB * MIB
                } else {
                    bytes
                })
            }
            HostCap::Bytes(bytes) => Some(bytes),
        }
    }
}

impl fmt::Display for HostCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostCap::None => f.write_str("none"),
            HostCap::Times(times) => write!(f, "{times}x"),
            // Without a space: a part of file names.
            HostCap::Bytes(bytes) => match bytes % (1 << 20) {
                0 => write!(f, "{}MiB", bytes >> 20),
                _ => write!(f, "{bytes}B"),
            },
        }
    }
}

impl FromStr for HostCap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(HostCap::None);
        }
        let times = text
            .strip_suffix('x')
            .map(|times| number::TIMES.parse(times));
        if let Some(Ok(times)) = times {
            return Ok(HostCap::Times(times));
        }
        match text.parse::<ByteSize>() {
            Ok(ByteSize(bytes)) if bytes > 0 => Ok(HostCap::Bytes(bytes)),
            _ => Err(format!(
                "`{text}` is no host cap: write none, a multiple of the model as in 1.5x, or a size as in 512MiB"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_are_read_as_they_are_written() {
        assert_eq!("none".parse(), Ok(HostCap::None));
        assert_eq!("1.5x".parse(), Ok(HostCap::Times(1.5)));
        assert_eq!("512 MiB".parse(), Ok(HostCap::Bytes(512 << 20)));
        for text in ["none", "1.5x", "0.25x", "512MiB", "1000B"] {
            assert_eq!(text.parse::<HostCap>().unwrap().to_string(), text);
        }
        for wrong in ["", "x", "-1x", "0x", "infx", "0", "512MB", "all"] {
            let error = wrong.parse::<HostCap>().unwrap_err();
            assert!(error.contains("1.5x"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_multiple_is_of_the_models_bytes() {
        assert_eq!(HostCap::Times(1.5).bytes(1000), Some(1500));
        let (mib, model) = (1 << 20, 100 * (1 << 20) + 7);
        assert_eq!(HostCap::Times(1.5).bytes(model), Some(150 * mib));
        assert_eq!(HostCap::Bytes(7).bytes(1000), Some(7));
        assert_eq!(HostCap::None.bytes(1000), None);
    }
}

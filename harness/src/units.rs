//! Bytes and seconds as people read and write them.

use std::str::FromStr;

use serde::Deserialize;

/// `1.52 GiB`, `381 MiB`, `12.0 KiB`: three significant digits or so, binary units.
pub fn bytes(bytes: u64) -> String {
    let value = bytes as f64;
    for (unit, scale) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let scaled = value / f64::from(1u32 << scale);
        if scaled >= 1.0 {
            return match scaled {
                ..10.0 => format!("{scaled:.2} {unit}"),
                ..100.0 => format!("{scaled:.1} {unit}"),
                _ => format!("{scaled:.0} {unit}"),
            };
        }
    }
    format!("{bytes} B")
}

/// `0.042 s`, `3.10 s`, `95 s`.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        ..0.1 => format!("{seconds:.4} s"),
        ..1.0 => format!("{seconds:.3} s"),
        ..10.0 => format!("{seconds:.2} s"),
        ..100.0 => format!("{seconds:.1} s"),
        _ => format!("{seconds:.0} s"),
    }
}

/// An exbibyte: sums of a few sizes stay numbers.
const MOST_BYTES: u64 = 1 << 60;

/// A number of bytes, written `2GiB`, `512 MiB` or `1000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
        let scale: Option<u64> = match text[digits.len()..].trim() {
            "" | "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let value: Option<f64> = digits
            .parse()
            .ok()
            .filter(|value: &f64| value.is_finite() && *value >= 0.0);
        let bytes = value.zip(scale).map(|(value, scale)| value * scale as f64);
        match bytes.filter(|bytes| *bytes <= MOST_BYTES as f64) {
            Some(bytes) => Ok(ByteSize(bytes as u64)),
            None => Err(format!(
                "`{text}` is no size: write 2GiB, 512MiB or a number of bytes; no machine has more than {MOST_BYTES} bytes"
            )),
        }
    }
}

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        assert_eq!("2GiB".parse(), Ok(ByteSize(2 << 30)));
        assert_eq!("1.5 MiB".parse(), Ok(ByteSize(3 << 19)));
        assert_eq!("17".parse(), Ok(ByteSize(17)));
        for wrong in [
            "2GB",
            "-1",
            "",
            "lots",
            "1e999",
            "1e300GiB",
            "99999999999GiB",
        ] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_are_shown_with_binary_units() {
        assert_eq!(bytes(1_625_145_344), "1.51 GiB");
        assert_eq!(bytes(154 << 20), "154 MiB");
        assert_eq!(bytes(12), "12 B");
    }
}

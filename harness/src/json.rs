//! JSON that people download: a few bytes of text for each value become some hundred in memory, so that the number of values is
//! bounded, too, before any is kept.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use anyhow::Context;
use checkpoint::read_whole;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor,
};

/// The largest vocabularies have a million, with their merges.
const MOST_VALUES: usize = 2_000_000;

/// Reads a file of at most so many bytes.
///
/// # Errors
///
/// If it cannot be read, is larger, has more values than any such file, or is not what is looked for.
pub fn read<T: DeserializeOwned>(path: &Path, max_bytes: u64) -> anyhow::Result<T> {
    let text = read_bounded(path, max_bytes)?;
    let read = serde_json::from_slice(&text);
    read.with_context(|| format!("{}: cannot be read", path.display()))
}

/// Its text, for who reads it otherwise.
///
/// # Errors
///
/// As [`read`].
pub fn read_bounded(path: &Path, max_bytes: u64) -> anyhow::Result<Vec<u8>> {
    let text = read_whole(path, max_bytes)?;
    check(&text).with_context(|| format!("{}: cannot be read", path.display()))?;
    Ok(text)
}

/// That there are not too many values, and that no name stands twice in an object: parsers keep the last and say nothing.
pub fn check(json: &[u8]) -> serde_json::Result<()> {
    let mut left = MOST_VALUES;
    let mut json = serde_json::Deserializer::from_slice(json);
    Counted(&mut left).deserialize(&mut json)
}

struct Counted<'a>(&'a mut usize);

impl<'de> DeserializeSeed<'de> for Counted<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        *self.0 = self.0.checked_sub(1).ok_or_else(|| {
            D::Error::custom(format!(
                "it has more than {MOST_VALUES} values, and no such file has"
            ))
        })?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counted<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        while values.next_element_seed(Counted(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = entries.next_key::<String>()? {
            entries.next_value_seed(Counted(&mut *self.0))?;
            if let Some(twice) = names.replace(name) {
                let twice = checkpoint::quoted(&twice);
                return Err(A::Error::custom(format!("{twice} stands there twice")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_without_end_are_refused_before_any_is_kept() {
        assert!(check(br#"{"a": [1, -2, 2.5, "x", null, true, {"b": []}]}"#).is_ok());
        assert!(check(b"[1,").is_err());
        let twice = check(br#"{"a": 1, "b": {"a": 2, "a": 3}}"#).unwrap_err();
        assert!(
            twice.to_string().contains("`a` stands there twice"),
            "{twice}"
        );
        for value in ["0", "[]", "\"\"", "{}"] {
            let many = vec![value; MOST_VALUES + 1].join(",");
            for text in [format!("[{many}]"), format!(r#"{{"x":[{many}]}}"#)] {
                let error = check(text.as_bytes()).unwrap_err().to_string();
                assert!(error.contains("more than 2000000 values"), "{error}");
            }
        }
    }
}

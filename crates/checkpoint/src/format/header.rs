//! What all that is read before the weights has in common, and what a hostile file would try with it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::marker::PhantomData;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::Error;

/// The next `bytes` of a file. Memory is taken as they come, and not as they are announced.
pub(crate) fn read(path: &Path, file: &mut File, bytes: u64) -> Result<Vec<u8>, Error> {
    let mut header = Vec::new();
    let read = file.take(bytes).read_to_end(&mut header);
    read.map_err(Error::io(path, "read"))?;
    match header.len() as u64 == bytes {
        true => Ok(header),
        false => Err(Error::invalid(path, "has shrunk while it was read")),
    }
}

/// A file with more entries is no checkpoint that anybody has: opening it would take memory without bound.
pub(super) const MOST_ENTRIES: usize = 300_000;
/// The same of what a file says of itself in words.
const MOST_WORDS: usize = 10_000;
/// A tensor's dimensions: PyTorch knows 64.
const MOST_DIMENSIONS: usize = 64;

/// That the JSON header of a safetensors file is one whose size the file's parser can be trusted with, and that no name stands
/// twice in it: parsers keep the last and say nothing.
pub(super) fn check_entries(json: &[u8]) -> Result<(), String> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut seen = HashSet::new();
            while let Some(name) = map.next_key::<String>()? {
                check_count(seen.len())?;
                if name == "__metadata__" {
                    map.next_value::<Option<Words>>()?;
                } else {
                    map.next_value::<Entry>()?;
                }
                if let Some(twice) = seen.replace(name) {
                    return Err(A::Error::custom(format!("holds tensor `{twice}` twice")));
                }
            }
            Ok(())
        }
    }
    let mut json = serde_json::Deserializer::from_slice(json);
    let checked = json.deserialize_map(Entries);
    checked.map_err(|error| format!("has an invalid header: {error}"))
}

/// That there may be another entry.
fn check_count<E: serde::de::Error>(count: usize) -> Result<(), E> {
    match count < MOST_ENTRIES {
        true => Ok(()),
        false => Err(E::custom(format!(
            "more than {MOST_ENTRIES} entries: no checkpoint has so many"
        ))),
    }
}

/// What is counted of a tensor's description.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "shape")]
    _shape: Dimensions,
}

struct Dimensions;

impl<'de> Deserialize<'de> for Dimensions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dimensions, D::Error> {
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = Dimensions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a shape")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<Dimensions, A::Error> {
                let mut count = 0;
                while sizes.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                    if count > MOST_DIMENSIONS {
                        let reason = format!("a tensor of more than {MOST_DIMENSIONS} dimensions");
                        return Err(A::Error::custom(reason));
                    }
                }
                Ok(Dimensions)
            }
        }
        deserializer.deserialize_seq(Count)
    }
}

/// What a file says of itself, counted.
struct Words;

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Words, D::Error> {
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Words, A::Error> {
                let mut count = 0;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    count += 1;
                    if count > MOST_WORDS {
                        let reason = format!("more than {MOST_WORDS} words of metadata");
                        return Err(A::Error::custom(reason));
                    }
                }
                Ok(Words)
            }
        }
        deserializer.deserialize_map(Count)
    }
}

/// A map none of whose keys stands twice.
pub(super) fn unique<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Unique<V>(PhantomData<V>);
    impl<'de, V: Deserialize<'de>> Visitor<'de> for Unique<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some((name, value)) = map.next_entry::<String, V>()? {
                check_count(all.len())?;
                if all.insert(name.clone(), value).is_some() {
                    return Err(A::Error::custom(format!("`{name}` stands there twice")));
                }
            }
            Ok(all)
        }
    }
    deserializer.deserialize_map(Unique(PhantomData))
}

/// Whether a name is that of a file in a folder, and leads nowhere else.
pub(super) fn is_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let is_one = matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none();
    is_one && !name.contains(['/', '\\', '\0'])
}

/// That a file of a checkpoint is no link out of its folder. The hub's cache is made of links from `snapshots/<revision>`
/// to `blobs` beside it: those are followed.
pub(super) fn check_inside(folder: &Path, file: &Path) -> Result<(), Error> {
    let real = |path: &Path| std::fs::canonicalize(path).map_err(Error::io(path, "open"));
    let (real_folder, real_file) = (real(folder)?, real(file)?);
    let blobs = || -> Option<PathBuf> {
        let snapshots = real_folder.parent()?;
        let is_cache = snapshots.file_name()? == "snapshots";
        is_cache.then_some(snapshots.parent()?.join("blobs"))
    };
    if real_file.starts_with(&real_folder)
        || blobs().is_some_and(|blobs| real_file.starts_with(blobs))
    {
        return Ok(());
    }
    let reason = format!(
        "is a link out of its folder, to {}: copy the file there",
        real_file.display()
    );
    Err(Error::invalid(file, reason))
}

//! The zip around a pickle: where each storage lies in it, and the pickle itself.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use zip::read::ZipReadOptions;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use crate::foreign::{self, Foreign};
use crate::{Error, file};

/// A description is small, and the logs of a training beside it are not: what is larger than this is no checkpoint.
const MAX_PICKLE_BYTES: u64 = 256 << 20;
const PICKLE: &str = "data.pkl";

pub(super) struct Archive<'a> {
    path: &'a Path,
    zip: ZipArchive<BufReader<File>>,
    /// What every name starts with, the archive's own: `model/`.
    prefix: String,
    records: HashMap<String, Record>,
}

/// A record of the zip.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    /// Its bytes lie in the file as they are.
    Stored {
        /// The first.
        start: u64,
        /// How many.
        bytes: u64,
    },
    /// They do not.
    Unreadable {
        /// Its whole name.
        member: String,
        /// What was done to it: "compressed".
        how: &'static str,
    },
}

impl Archive<'_> {
    pub fn open(path: &Path) -> Result<Archive<'_>, Error> {
        let invalid = |error| invalid(path, &error);
        let (file, _) = file::open(path)?;
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(invalid)?;
        let names: Vec<String> = zip
            .file_names()
            .filter_map(Result::ok)
            .map(|name| name.into_owned())
            .collect();
        let foreign = |kind| Error::Foreign {
            path: path.to_owned(),
            kind,
        };
        let prefix = prefix(path, &names)?.ok_or_else(|| foreign(foreign::of_zip(&names)))?;
        // Both hold a data.pkl, too.
        let is_script = |name: &String| {
            let name = name.strip_prefix(&prefix);
            name.is_some_and(|name| name == "constants.pkl" || name.starts_with("code/"))
        };
        if names.iter().any(is_script) {
            return Err(foreign(Foreign::TorchScript));
        }
        if zip.has_duplicate_names() {
            return Err(Error::invalid(
                path,
                "is a zip with two records of one name",
            ));
        }
        let mut records = HashMap::with_capacity(zip.len());
        for position in 0..zip.len() {
            let record = zip.by_index_raw(position).map_err(invalid)?;
            let member = record.name().map_err(invalid)?.into_owned();
            let Some(name) = member.strip_prefix(&prefix) else {
                continue;
            };
            let found = match (
                record.encrypted(),
                record.compression(),
                record.data_start(),
            ) {
                (false, CompressionMethod::Stored, Some(start)) => Record::Stored {
                    start,
                    bytes: record.size(),
                },
                (true, ..) => Record::Unreadable {
                    how: "encrypted",
                    member: member.clone(),
                },
                _ => Record::Unreadable {
                    how: "compressed",
                    member: member.clone(),
                },
            };
            records.insert(name.to_owned(), found);
        }
        Ok(Archive {
            path,
            zip,
            prefix,
            records,
        })
    }

    /// The record of this name within the archive.
    pub fn record(&self, name: &str) -> Option<&Record> {
        self.records.get(name)
    }

    /// That its storages are in this machine's byte order.
    pub fn check_byte_order(&mut self) -> Result<(), Error> {
        const ORDER: &str = "byteorder";
        if !self.records.contains_key(ORDER) {
            return Ok(());
        }
        let path = self.path;
        let mut order = Vec::new();
        self.read(ORDER, |reader| {
            let read = reader.take(16).read_to_end(&mut order);
            read.map(drop).map_err(|error| error.to_string())
        })?;
        match order == b"little" {
            true => Ok(()),
            false => Err(Error::invalid(
                path,
                "is big-endian: save it again on another machine",
            )),
        }
    }

    /// Hands the pickle to `parse`, as a stream.
    pub fn pickle<T>(
        &mut self,
        parse: impl FnOnce(&mut dyn BufRead) -> Result<T, String>,
    ) -> Result<T, Error> {
        let mut parsed = None;
        self.read(PICKLE, |reader| {
            parsed = Some(parse(reader)?);
            Ok(())
        })?;
        Ok(parsed.expect("it is there where there was no error"))
    }

    fn read(
        &mut self,
        name: &str,
        each: impl FnOnce(&mut dyn BufRead) -> Result<(), String>,
    ) -> Result<(), Error> {
        let path = self.path;
        let member = format!("{}{name}", self.prefix);
        let unreadable =
            |reason: String| Error::invalid(path, format!("its {name} cannot be read: {reason}"));
        if let Some(Record::Unreadable {
            how: "encrypted", ..
        }) = self.records.get(name)
        {
            let reason = format!("`{member}` is encrypted: unpack it, and save it again");
            return Err(Error::invalid(path, reason));
        }
        let position = self.zip.index_for_name(&member);
        let position = position.ok_or_else(|| unreadable("it is missing".to_owned()))?;
        let crc = self.zip.by_index_raw(position);
        let crc = crc.map_err(|error| invalid(path, &error))?.crc32();
        // Where no checksums are asked for, torch.save writes 0.
        let options = ZipReadOptions::new().ignore_crc32(crc == 0);
        let record = self.zip.by_index_with_options(position, options);
        let record = record.map_err(|error| match error {
            ZipError::UnsupportedArchive(_) => {
                let reason = format!(
                    "`{member}` is compressed in a way that PyTorch does not write: load it in PyTorch and save it again with \
                     torch.save"
                );
                Error::invalid(path, reason)
            }
            error => invalid(path, &error),
        })?;
        if record.size() > MAX_PICKLE_BYTES {
            return Err(unreadable(format!(
                "it has {} bytes, and {MAX_PICKLE_BYTES} are read: save the weights without the logs and data beside them, with \
                 torch.save(model.state_dict(), path)",
                record.size()
            )));
        }
        // The size is what the zip says. It may lie.
        let mut reader = BufReader::with_capacity(1 << 16, record.take(MAX_PICKLE_BYTES));
        each(&mut reader).map_err(unreadable)?;
        // To its end, where its checksum is compared.
        let rest = io::copy(&mut reader, &mut io::sink());
        rest.map_err(|error| unreadable(error.to_string()))?;
        Ok(())
    }
}

fn invalid(path: &Path, error: &ZipError) -> Error {
    let reason = format!("is no valid .pth file, or truncated: {error}");
    Error::invalid(path, reason)
}

/// What stands before `data.pkl`; `None` where no record is called so.
fn prefix(path: &Path, names: &[String]) -> Result<Option<String>, Error> {
    let mut prefixes = names.iter().filter_map(|name| {
        let prefix = name.strip_suffix(PICKLE)?;
        let is_folder = prefix.is_empty() || prefix.ends_with('/');
        // What macOS packs beside each file.
        (is_folder && !prefix.starts_with("__MACOSX/")).then_some(prefix)
    });
    let (first, second) = (prefixes.next(), prefixes.next());
    match (first, second) {
        (Some(first), Some(second)) => Err(Error::invalid(
            path,
            format!(
                "is a zip with two checkpoints, `{first}` and `{second}`: unpack it, and take one"
            ),
        )),
        (first, _) => Ok(first.map(str::to_owned)),
    }
}

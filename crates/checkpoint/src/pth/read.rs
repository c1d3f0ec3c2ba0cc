//! From a `.pth` file to byte ranges.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use zip::{CompressionMethod, ZipArchive};

use super::pickle::{Id, Pickle, Value};
use crate::format::Found;
use crate::{Dtype, Error, TensorRange};

/// A description of a state dict is small; anything larger is no checkpoint.
const MAX_PICKLE_BYTES: u64 = 16 << 20;

/// Where training programs keep the state dict among the rest of what they save.
const STATE_DICT_KEYS: [&str; 4] = ["model_state_dict", "state_dict", "model", "module"];

pub(crate) fn read_index(path: &Path) -> Result<Found, Error> {
    let archive = Archive::open(path)?;
    let pickle = Pickle::parse(&archive.pickle)
        .map_err(|reason| Error::invalid(path, format!("its data.pkl cannot be read: {reason}")))?;
    let reader = StateDict {
        path: path.into(),
        pickle: &pickle,
        records: &archive.records,
    };
    let Some(entries) = reader.entries() else {
        let reason = "holds no state dict: save model.state_dict(), or a dictionary with it as `model_state_dict`, and not \
                      the model itself";
        return Err(Error::invalid(path, reason));
    };
    let mut found = Found::default();
    for &(key, value) in entries {
        let Some(name) = pickle.str(key) else {
            return Err(Error::invalid(
                path,
                "holds an entry whose key is no string",
            ));
        };
        match reader.tensor(name, value) {
            Ok(tensor) => found.add(name, Ok(tensor)),
            Err(Refused::NoWeights(reason)) => found.add(name, Err(reason)),
            Err(Refused::Invalid(reason)) => {
                return Err(Error::invalid(path, format!("entry `{name}` {reason}")));
            }
        }
    }
    Ok(found)
}

/// Why an entry gives no tensor.
enum Refused {
    /// It is something else, which a state dict may hold.
    NoWeights(String),
    /// It contradicts itself or the file.
    Invalid(String),
}

impl From<&str> for Refused {
    fn from(reason: &str) -> Refused {
        Refused::Invalid(reason.to_owned())
    }
}

/// The parts of the zip that matter: the pickle, and where each stored record lies.
struct Archive {
    pickle: Vec<u8>,
    records: HashMap<String, (u64, u64)>,
}

impl Archive {
    fn open(path: &Path) -> Result<Archive, Error> {
        let invalid = |error: zip::result::ZipError| {
            Error::invalid(
                path,
                format!("is no valid .pth file, or truncated: {error}"),
            )
        };
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(invalid)?;
        // Every name starts with the archive's own: `model/data.pkl`.
        let prefix = zip
            .file_names()
            .filter_map(Result::ok)
            .find_map(|name| name.strip_suffix("data.pkl").map(str::to_owned))
            .ok_or_else(|| {
                Error::invalid(path, "is a zip without data.pkl: not saved by torch.save")
            })?;
        let mut records = HashMap::with_capacity(zip.len());
        if zip.has_duplicate_names() {
            return Err(Error::invalid(
                path,
                "is a zip with two records of one name",
            ));
        }
        for position in 0..zip.len() {
            let record = zip.by_index_raw(position).map_err(invalid)?;
            let name = record.name().map_err(invalid)?;
            let Some(name) = name.strip_prefix(&prefix) else {
                continue;
            };
            if record.compression() == CompressionMethod::Stored
                && let Some(start) = record.data_start()
            {
                records.insert(name.to_owned(), (start, record.size()));
            }
        }
        let mut text = |name: &str, limit: u64| -> Result<Option<Vec<u8>>, Error> {
            let Ok(record) = zip.by_name(&format!("{prefix}{name}")) else {
                return Ok(None);
            };
            let mut bytes = Vec::new();
            record
                .take(limit + 1)
                .read_to_end(&mut bytes)
                .map_err(Error::io(path, "read"))?;
            if bytes.len() as u64 > limit {
                return Err(Error::invalid(
                    path,
                    format!("its {name} is over {limit} bytes"),
                ));
            }
            Ok(Some(bytes))
        };
        if let Some(order) = text("byteorder", 16)?
            && order != b"little"
        {
            return Err(Error::invalid(
                path,
                "is big-endian: save it again on another machine",
            ));
        }
        let pickle = text("data.pkl", MAX_PICKLE_BYTES)?
            .ok_or_else(|| Error::invalid(path, "its data.pkl cannot be read"))?;
        Ok(Archive { pickle, records })
    }
}

struct StateDict<'a> {
    path: Arc<Path>,
    pickle: &'a Pickle,
    records: &'a HashMap<String, (u64, u64)>,
}

impl StateDict<'_> {
    /// The names and tensors of the state dict: of the dictionary itself, or of one that it holds under a usual key.
    fn entries(&self) -> Option<&[(Id, Id)]> {
        let Value::Dict(root) = self.pickle.get(self.pickle.root) else {
            return None;
        };
        let has_tensor = |entries: &[(Id, Id)]| {
            let mut values = entries.iter().map(|&(_, value)| value);
            values.any(|value| self.arguments(value).is_ok())
        };
        // What is saved beside a state dict may be tensors, too: a random generator's state.
        let nested = STATE_DICT_KEYS.iter().find_map(|wanted| {
            let mut entries = root.iter();
            let (_, value) = entries.find(|(key, _)| self.pickle.str(*key) == Some(wanted))?;
            match self.pickle.get(*value) {
                Value::Dict(entries) if has_tensor(entries) => Some(&entries[..]),
                _ => None,
            }
        });
        // An empty dictionary is a state dict, too: what is missing is said by whoever needs it.
        nested.or((root.is_empty() || has_tensor(root)).then_some(&root[..]))
    }

    /// The arguments of `_rebuild_tensor_v2(storage, offset, size, stride, …)`, possibly wrapped in a parameter.
    fn arguments(&self, mut id: Id) -> Result<&[Id], String> {
        // A parameter holds a tensor, and no other parameter.
        for _ in 0..2 {
            match self.pickle.call(id) {
                Some(("torch._utils._rebuild_tensor_v2", arguments)) => return Ok(arguments),
                Some(("torch._utils._rebuild_parameter", [tensor, ..])) => id = *tensor,
                Some((other, _)) => {
                    return Err(format!("is built by {other}, and not a plain tensor"));
                }
                None => break,
            }
        }
        Err("is no tensor".to_owned())
    }

    fn tensor(&self, name: &str, id: Id) -> Result<TensorRange, Refused> {
        let pickle = self.pickle;
        let arguments = self.arguments(id).map_err(Refused::NoWeights)?;
        let [storage, offset, shape, strides, ..] = arguments else {
            return Err("is a tensor with missing fields".into());
        };
        let (dtype, start, storage_bytes) = self.storage(*storage)?;
        let offset = pickle.int(*offset).ok_or("has no valid offset")?;
        let shape = self.sizes(*shape).ok_or("has no valid shape")?;
        let strides = self.sizes(*strides).ok_or("has no valid strides")?;
        if shape.len() != strides.len() {
            return Err("has another number of strides than of dimensions".into());
        }
        let tensor = TensorRange {
            name: name.to_owned(),
            dtype,
            shape,
            strides,
            file: Arc::clone(&self.path),
            offset: offset
                .checked_mul(dtype.bytes())
                .and_then(|offset| offset.checked_add(start))
                .ok_or("reaches past the end of its storage")?,
        };
        match tensor.end() {
            Some(end) if end <= start + storage_bytes => Ok(tensor),
            _ => Err("reaches past the end of its storage".into()),
        }
    }

    /// `('storage', torch.FloatStorage, key, location, elements)`: dtype, first byte, bytes.
    fn storage(&self, id: Id) -> Result<(Dtype, u64, u64), Refused> {
        let pickle = self.pickle;
        let Value::Persistent(id) = pickle.get(id) else {
            return Err("has no storage".into());
        };
        let Some([_, kind, key, ..]) = pickle.tuple(*id) else {
            return Err("has a storage without a key".into());
        };
        let dtype = match pickle.get(*kind) {
            Value::Global(name) => match name.as_str() {
                "torch.FloatStorage" => Dtype::F32,
                "torch.HalfStorage" => Dtype::F16,
                "torch.BFloat16Storage" => Dtype::Bf16,
                "torch.CharStorage" => Dtype::I8,
                other => {
                    let reason = format!("is of {other}: weights are f32, f16 or bf16");
                    return Err(Refused::NoWeights(reason));
                }
            },
            _ => return Err("has a storage without a type".into()),
        };
        let key = pickle.str(*key).ok_or("has a storage without a key")?;
        let record = self.records.get(&format!("data/{key}"));
        let &(start, bytes) = record.ok_or_else(|| {
            Refused::Invalid(format!(
                "refers to storage {key}, which is missing or compressed"
            ))
        })?;
        Ok((dtype, start, bytes))
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let items = self.pickle.tuple(id)?.iter();
        items
            .map(|&item| Some(self.pickle.int(item)? as usize))
            .collect()
    }
}

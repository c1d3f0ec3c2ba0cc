//! From a `.pth` file to byte ranges.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use zip::{CompressionMethod, ZipArchive};

use super::pickle::{Id, Pickle, Value};
use crate::format::{Found, is_mask_buffer};
use crate::{Dtype, Error, TensorRange};

/// A description of a state dict is small; anything larger is no checkpoint.
const MAX_PICKLE_BYTES: u64 = 64 << 20;

pub(crate) fn read_index(path: &Path) -> Result<Found, Error> {
    let archive = Archive::open(path)?;
    let pickle = Pickle::parse(&archive.pickle)
        .map_err(|reason| Error::invalid(path, format!("its data.pkl cannot be read: {reason}")))?;
    let Value::Dict(entries) = pickle.get(pickle.root) else {
        let reason = "holds no state dict: save model.state_dict(), not the model itself";
        return Err(Error::invalid(path, reason));
    };
    let reader = StateDict {
        path: path.into(),
        pickle: &pickle,
        records: &archive.records,
    };
    let mut found = Found {
        tensors: Vec::with_capacity(entries.len()),
        ignored: Vec::new(),
    };
    for &(key, value) in entries {
        let Some(name) = pickle.str(key) else {
            return Err(Error::invalid(
                path,
                "holds an entry whose key is no string",
            ));
        };
        if is_mask_buffer(name) {
            found.ignored.push(name.to_owned());
        } else {
            let tensor = reader.tensor(name, value);
            found.tensors.push(
                tensor
                    .map_err(|reason| Error::invalid(path, format!("entry `{name}` {reason}")))?,
            );
        }
    }
    Ok(found)
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
    /// `_rebuild_tensor_v2(storage, offset, size, stride, …)`, possibly wrapped in a parameter.
    fn tensor(&self, name: &str, id: Id) -> Result<TensorRange, String> {
        let pickle = self.pickle;
        let arguments = match pickle.call(id) {
            Some(("torch._utils._rebuild_parameter", [tensor, ..])) => {
                return self.tensor(name, *tensor);
            }
            Some(("torch._utils._rebuild_tensor_v2", arguments)) => arguments,
            Some((other, _)) => return Err(format!("is built by {other}, and not a plain tensor")),
            None => return Err("is no tensor".to_owned()),
        };
        let [storage, offset, shape, strides, ..] = arguments else {
            return Err("is a tensor with missing fields".to_owned());
        };
        let (dtype, start, storage_bytes) = self.storage(*storage)?;
        let offset = pickle.int(*offset).ok_or("has no valid offset")?;
        let shape = self.sizes(*shape).ok_or("has no valid shape")?;
        let strides = self.sizes(*strides).ok_or("has no valid strides")?;
        if !is_contiguous(&shape, &strides) {
            return Err("is not contiguous: call .contiguous() on it before saving".to_owned());
        }
        let elements = shape
            .iter()
            .try_fold(1u64, |product, &size| product.checked_mul(size as u64));
        let end = elements
            .and_then(|elements| elements.checked_add(offset))
            .and_then(|end| end.checked_mul(dtype.bytes()))
            .filter(|&end| end <= storage_bytes);
        if end.is_none() {
            return Err("reaches past the end of its storage".to_owned());
        }
        Ok(TensorRange {
            name: name.to_owned(),
            dtype,
            shape,
            file: Arc::clone(&self.path),
            offset: start + offset * dtype.bytes(),
        })
    }

    /// `('storage', torch.FloatStorage, key, location, elements)`: dtype, first byte, bytes.
    fn storage(&self, id: Id) -> Result<(Dtype, u64, u64), String> {
        let pickle = self.pickle;
        let Value::Persistent(id) = pickle.get(id) else {
            return Err("has no storage".to_owned());
        };
        let Some([_, kind, key, ..]) = pickle.tuple(*id) else {
            return Err("has a storage without a key".to_owned());
        };
        let dtype = match pickle.get(*kind) {
            Value::Global(name) => match name.as_str() {
                "torch.FloatStorage" => Dtype::F32,
                "torch.HalfStorage" => Dtype::F16,
                "torch.BFloat16Storage" => Dtype::Bf16,
                "torch.CharStorage" => Dtype::I8,
                other => return Err(format!("is a {other}: weights are f32, f16 or bf16")),
            },
            _ => return Err("has a storage without a type".to_owned()),
        };
        let key = pickle.str(*key).ok_or("has a storage without a key")?;
        let record = self.records.get(&format!("data/{key}"));
        let &(start, bytes) = record
            .ok_or_else(|| format!("refers to storage {key}, which is missing or compressed"))?;
        Ok((dtype, start, bytes))
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let items = self.pickle.tuple(id)?.iter();
        items
            .map(|&item| Some(self.pickle.int(item)? as usize))
            .collect()
    }
}

/// Row-major without gaps; the stride of a dimension of one element means nothing.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected: usize = 1;
    shape.len() == strides.len()
        && shape.iter().zip(strides).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected = expected.saturating_mul(size);
            fits
        })
}

//! From a `.pth` file to byte ranges.

use std::path::Path;
use std::sync::Arc;

use super::archive::{Archive, Record};
use super::beside::beside;
use super::choice;
use super::tensor::{Built, Tensor, built, dtype, storage_of};
use super::value::{Pickle, Value};
use crate::format::Found;
use crate::{Error, TensorRange, Unreadable};

/// The tensors of the state dict: of that at `key`, or where none is given, of that in a usual place.
pub(crate) fn read_index(path: &Path, key: Option<&str>) -> Result<Found, Error> {
    let mut archive = Archive::open(path)?;
    archive.check_byte_order()?;
    let pickle = archive.pickle(|input| Pickle::parse(input))?;
    let chosen = match key {
        Some(key) => choice::at(&pickle, key),
        None => choice::usual(&pickle),
    };
    let state_dict = chosen.map_err(|holds| Error::NoStateDict {
        path: path.to_owned(),
        asked: key.map(str::to_owned),
        holds,
    })?;
    let reader = StateDict {
        path: path.into(),
        pickle: &pickle,
        archive: &archive,
    };
    let mut found = Found {
        metadata: beside(&pickle, state_dict),
        ..Found::default()
    };
    for &(key, value) in pickle.entries(state_dict).unwrap_or_default() {
        let Some(name) = pickle.key(key).map(|key| key.to_string()) else {
            return Err(Error::invalid(
                path,
                "holds an entry whose key is neither a text nor a number",
            ));
        };
        // What was set to nothing is not there.
        if value == Value::None {
            continue;
        }
        let tensor = match (pickle.str(key), built(&pickle, value)) {
            (None, _) => Err(Unreadable::NoTensor.into()),
            (Some(name), built) => reader.tensor(name, built),
        };
        match tensor {
            Ok(tensor) => found.add(&name, Ok(tensor)),
            Err(Refused::NoWeights(reason, range)) => {
                found.refuse(&name, reason, range.map(|range| *range))
            }
            Err(Refused::Invalid(reason)) => {
                return Err(Error::invalid(path, format!("entry `{name}` {reason}")));
            }
        }
    }
    Ok(found)
}

/// Why an entry gives no tensor.
enum Refused {
    /// It is something else, which a state dict may hold; with where its elements lie, if it is a tensor.
    NoWeights(Unreadable, Option<Box<TensorRange>>),
    /// It contradicts itself or the file.
    Invalid(String),
}

impl From<&str> for Refused {
    fn from(reason: &str) -> Refused {
        Refused::Invalid(reason.to_owned())
    }
}

impl From<Unreadable> for Refused {
    fn from(reason: Unreadable) -> Refused {
        Refused::NoWeights(reason, None)
    }
}

struct StateDict<'a> {
    path: Arc<Path>,
    pickle: &'a Pickle,
    archive: &'a Archive<'a>,
}

impl StateDict<'_> {
    fn tensor(&self, name: &str, built: Built<'_>) -> Result<TensorRange, Refused> {
        match built {
            Built::Tensor(tensor) => self.range(name, tensor),
            Built::Refused(reason) => Err(Unreadable::Unsupported(reason).into()),
            Built::Array => Err(Unreadable::Unsupported(
                "is a NumPy array: save tensors, made with torch.from_numpy".to_owned(),
            )
            .into()),
            Built::Module(class) => Err(Unreadable::Unsupported(format!(
                "is a whole module, of the class {class}"
            ))
            .into()),
            Built::Nothing => Err(Unreadable::NoTensor.into()),
        }
    }

    fn range(&self, name: &str, tensor: Tensor<'_>) -> Result<TensorRange, Refused> {
        let shape = self.sizes(tensor.shape).ok_or("has no valid shape")?;
        if shape.contains(&0) {
            return Err(Unreadable::Empty(shape).into());
        }
        let strides = self.sizes(tensor.strides).ok_or("has no valid strides")?;
        if shape.len() != strides.len() {
            return Err("has another number of strides than of dimensions".into());
        }
        let Some(offset) = self.size(tensor.offset) else {
            return Err("has no valid offset".into());
        };
        let (kind, start, storage_bytes) = self.storage(tensor)?;
        let no_weight = || Unreadable::Dtype(kind.to_owned());
        let dtype = dtype(kind).ok_or_else(no_weight)?;
        let beyond = || match storage_of(dtype) {
            Some(_) => "reaches past the end of its storage".into(),
            // PyTorch knows them, and computes next to nothing with them: the rest of the file is good without.
            None => no_weight().into(),
        };
        let offset = offset.checked_mul(dtype.bytes());
        let tensor = TensorRange {
            name: name.to_owned(),
            dtype,
            shape,
            strides,
            file: Arc::clone(&self.path),
            offset: offset
                .and_then(|offset| offset.checked_add(start))
                .ok_or_else(beyond)?,
        };
        match tensor.end() {
            Some(end) if end <= start + storage_bytes => {}
            _ => return Err(beyond()),
        }
        if dtype.is_weight() {
            return Ok(tensor);
        }
        // With a stride of 0 it has more elements than the file has bytes, perhaps without end.
        let in_memory = tensor.bytes_in_memory();
        let is_bounded = in_memory.is_some_and(|bytes| bytes <= storage_bytes);
        let range = is_bounded.then(|| Box::new(tensor));
        Err(Refused::NoWeights(no_weight(), range))
    }

    /// `('storage', torch.FloatStorage, key, location, elements)`: dtype in PyTorch's words, first byte, bytes.
    fn storage<'a>(&'a self, tensor: Tensor<'a>) -> Result<(&'a str, u64, u64), Refused> {
        let pickle = self.pickle;
        let Some(super::value::Node::Persistent(id)) = pickle.node(tensor.storage) else {
            return Err("has no storage".into());
        };
        let Some([_, kind, key, ..]) = pickle.tuple(*id) else {
            return Err("has a storage without a key".into());
        };
        let kind = tensor.dtype.or_else(|| pickle.global(*kind));
        let kind = kind.ok_or("has a storage without a type")?;
        let key = pickle.str(*key).ok_or("has a storage without a key")?;
        match self.archive.record(&format!("data/{key}")) {
            Some(Record::Stored { start, bytes }) => Ok((kind, *start, *bytes)),
            Some(Record::Unreadable { member, how }) => Err(Unreadable::Packed {
                member: member.clone(),
                how,
            }
            .into()),
            None => Err(Refused::Invalid(format!(
                "refers to storage {key}, which is missing"
            ))),
        }
    }

    fn sizes(&self, value: Value) -> Option<Vec<usize>> {
        // A size of PyTorch's own, or a tuple.
        let tuple = match self.pickle.object(value) {
            Some(size) if self.pickle.global(size.callable)? == "torch.Size" => {
                *self.pickle.tuple(size.arguments)?.first()?
            }
            _ => value,
        };
        let items = self.pickle.tuple(tuple)?.iter();
        items.map(|&item| Some(self.size(item)? as usize)).collect()
    }

    fn size(&self, value: Value) -> Option<u64> {
        match value {
            Value::Int(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }
}

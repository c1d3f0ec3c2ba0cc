//! Burn's own format, as burn-store 0.21 writes it: a short head, the tensors' descriptions in CBOR, and the data, which
//! begins at a multiple of 256.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Found, Unreadable, header};
use crate::index::contiguous_strides;
use crate::write::{Source, Written};
use crate::{Dtype, Error, TensorRange, file};

/// `BURN` as a number, little-endian like all that follows.
const MAGIC: &[u8; 4] = b"NRUB";
/// Magic number, version, length of the description.
const HEAD_BYTES: u64 = 4 + 2 + 4;
const VERSION: u16 = 1;
/// As burn-store has it.
const MAX_DESCRIPTION_BYTES: u64 = 100 << 20;
/// Of the data, and of each tensor in it.
const DATA_ALIGNMENT: u64 = 256;
/// What is nested deeper is no description of tensors.
const MAX_DEPTH: usize = 32;
/// What weights are of in such a file: quantised ones are not kept as this project does.
const WEIGHTS: [Dtype; 3] = Dtype::ALL;

#[derive(Deserialize, Serialize)]
struct Description {
    #[serde(deserialize_with = "header::unique")]
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Deserialize, Serialize)]
struct Tensor {
    dtype: ciborium::Value,
    shape: Vec<u64>,
    /// Within the data.
    data_offsets: (u64, u64),
}

/// What Burn calls a dtype. Of booleans it says how they are stored, too: see [`description_of`].
fn name_of(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "F64",
        Dtype::F32 => "F32",
        Dtype::F16 => "F16",
        Dtype::Bf16 => "BF16",
        Dtype::I64 => "I64",
        Dtype::I32 => "I32",
        Dtype::I16 => "I16",
        Dtype::I8 => "I8",
        Dtype::U64 => "U64",
        Dtype::U32 => "U32",
        Dtype::U16 => "U16",
        Dtype::U8 => "U8",
        Dtype::Bool => "Bool",
    }
}

/// A dtype as burn-store writes it: its name, or of booleans `{"Bool": "Native"}`.
fn description_of(dtype: Dtype) -> ciborium::Value {
    let name = ciborium::Value::Text(name_of(dtype).to_owned());
    match dtype {
        Dtype::Bool => ciborium::Value::Map(vec![(name, "Native".into())]),
        _ => name,
    }
}

/// The dtype that is described so. Booleans lie in a byte each, or, where a device has none of these, in four: such are not read.
fn dtype_of(description: &ciborium::Value) -> Option<Dtype> {
    let (name, store) = match description {
        ciborium::Value::Map(entries) => {
            let [(name, store)] = &entries[..] else {
                return None;
            };
            (name.as_text()?, Some(store.as_text()?))
        }
        name => (name.as_text()?, None),
    };
    let mut known = Dtype::KNOWN.into_iter();
    let dtype = known.find(|dtype| name_of(*dtype) == name)?;
    let is_it = match dtype {
        Dtype::Bool => matches!(store, Some("Native" | "U8")),
        _ => store.is_none(),
    };
    is_it.then_some(dtype)
}

pub(super) fn read_index(path: &Path) -> Result<Found, Error> {
    let invalid = |reason: String| Error::invalid(path, reason);
    let (mut file, length) = file::open(path)?;
    let mut head = [0; HEAD_BYTES as usize];
    if file.read_exact(&mut head).is_err() {
        return Err(invalid("is a truncated burnpack file".to_owned()));
    }
    let [_, _, _, _, v0, v1, d0, d1, d2, d3] = head;
    let version = u16::from_le_bytes([v0, v1]);
    if version != VERSION {
        return Err(invalid(format!(
            "is a burnpack file of version {version}, and {VERSION} is known here"
        )));
    }
    let description_bytes = u64::from(u32::from_le_bytes([d0, d1, d2, d3]));
    let data_start = (HEAD_BYTES + description_bytes).next_multiple_of(DATA_ALIGNMENT);
    if description_bytes > MAX_DESCRIPTION_BYTES || HEAD_BYTES + description_bytes > length {
        return Err(invalid(format!(
            "is no valid burnpack file, or truncated: its description has {description_bytes} bytes, the file {length}"
        )));
    }
    let description = header::read(path, &mut file, description_bytes)?;
    let description: Description =
        ciborium::de::from_reader_with_recursion_limit(&description[..], MAX_DEPTH)
            .map_err(|error| invalid(format!("has an invalid description: {error}")))?;

    let shared: Arc<Path> = path.into();
    let mut found = Found::default();
    for (name, tensor) in description.tensors {
        let (start, end) = tensor.data_offsets;
        let shape: Option<Vec<usize>> = tensor
            .shape
            .iter()
            .map(|&size| usize::try_from(size).ok())
            .collect();
        let Some(shape) = shape else {
            let reason = format!("has the impossible shape {:?}", tensor.shape);
            found.refuse(&name, Unreadable::Unsupported(reason), None);
            continue;
        };
        let dtype = dtype_of(&tensor.dtype);
        let range = dtype.map(|dtype| TensorRange {
            name: name.clone(),
            dtype,
            strides: contiguous_strides(&shape),
            shape,
            file: Arc::clone(&shared),
            offset: data_start.saturating_add(start),
        });
        let is_consistent = range.as_ref().is_some_and(|range| {
            let mut sizes = range.shape.iter();
            let bytes = sizes.try_fold(range.dtype.bytes(), |bytes, &size| {
                bytes.checked_mul(size as u64)
            });
            bytes.is_some() && end.checked_sub(start) == bytes
        });
        match (range, &tensor.dtype) {
            (Some(range), _) if WEIGHTS.contains(&range.dtype) => {
                if !is_consistent {
                    return Err(invalid(format!(
                        "tensor `{name}` of shape {:?} and {} is said to lie in bytes {start} to {end}",
                        range.shape, range.dtype
                    )));
                }
                found.add(&name, Ok(range));
            }
            (range, described) => {
                let reason = match described.as_text() {
                    Some(dtype) => Unreadable::Dtype(dtype.to_owned()),
                    None => {
                        Unreadable::Unsupported("is quantised by Burn: see prequantized".to_owned())
                    }
                };
                found.refuse(&name, reason, range.filter(|_| is_consistent));
            }
        }
    }
    // In the order of the file, as loaders read it.
    found.tensors.sort_by_key(|tensor| tensor.offset);
    Ok(found)
}

pub(super) fn write(path: &Path, mut source: Source<'_>) -> Result<Written, Error> {
    let mut end = 0u64;
    let mut tensors = BTreeMap::new();
    for tensor in source.tensors() {
        if tensor.dtype == Dtype::I8 {
            let reason = "cannot hold 8-bit integers as this project quantises them";
            return Err(Error::invalid(path, reason));
        }
        let start = end.next_multiple_of(DATA_ALIGNMENT);
        end = start + tensor.bytes();
        let described = Tensor {
            dtype: description_of(tensor.dtype),
            shape: tensor.shape.iter().map(|&size| size as u64).collect(),
            data_offsets: (start, end),
        };
        tensors.insert(tensor.name.clone(), described);
    }
    let mut description = Vec::new();
    ciborium::into_writer(&Description { tensors }, &mut description)
        .expect("names and numbers are valid CBOR");

    let file = File::create(path).map_err(Error::io(path, "create"))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let mut head = MAGIC.to_vec();
    head.extend(VERSION.to_le_bytes());
    head.extend((description.len() as u32).to_le_bytes());
    head.extend(description);
    let pad = |file: &mut BufWriter<File>, bytes: &mut u64| -> Result<(), Error> {
        let padding = (bytes.next_multiple_of(DATA_ALIGNMENT) - *bytes) as usize;
        *bytes += padding as u64;
        let zeros = [0; DATA_ALIGNMENT as usize];
        file.write_all(&zeros[..padding])
            .map_err(Error::io(path, "write"))
    };
    file.write_all(&head).map_err(Error::io(path, "write"))?;
    let mut bytes = head.len() as u64;
    let mut written = Written::default();
    for tensor in source.tensors().to_vec() {
        pad(&mut file, &mut bytes)?;
        let digest = source.write_one(path, &tensor, &mut file)?;
        bytes += tensor.bytes();
        written.digests.push((tensor.name, digest));
    }
    let file = file
        .into_inner()
        .map_err(|error| Error::io(path, "write")(error.into_error()))?;
    file.sync_all().map_err(Error::io(path, "write"))?;
    Ok(written)
}

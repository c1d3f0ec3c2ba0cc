//! Burn's own format, as burn-store 0.21 writes it: a short head, the tensors' descriptions in CBOR, and the data, which
//! begins at a multiple of 256.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::{Found, header};
use crate::index::contiguous_strides;
use crate::{Dtype, Error, TensorRange};

/// Magic number, version, length of the description; all little-endian.
const HEAD_BYTES: u64 = 4 + 2 + 4;
const VERSION: u16 = 1;
/// As burn-store has it.
const MAX_DESCRIPTION_BYTES: u64 = 100 << 20;
const DATA_ALIGNMENT: u64 = 256;
/// What is nested deeper is no description of tensors.
const MAX_DEPTH: usize = 32;

#[derive(Deserialize)]
struct Description {
    #[serde(deserialize_with = "header::unique")]
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    dtype: ciborium::Value,
    shape: Vec<u64>,
    /// Within the data.
    data_offsets: (u64, u64),
}

pub(super) fn read_index(path: &Path) -> Result<Found, Error> {
    let invalid = |reason: String| Error::invalid(path, reason);
    let mut file = File::open(path).map_err(Error::io(path, "open"))?;
    let length = file.metadata().map_err(Error::io(path, "open"))?.len();
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
        let range = match (&tensor.dtype, shape) {
            (_, None) => Err(format!("has the impossible shape {:?}", tensor.shape)),
            (ciborium::Value::Text(dtype), Some(shape)) => match &**dtype {
                "F32" => Ok((Dtype::F32, shape)),
                "F16" => Ok((Dtype::F16, shape)),
                "BF16" => Ok((Dtype::Bf16, shape)),
                other => Err(format!("is {other}: weights are f32, f16 or bf16")),
            },
            _ => Err("is quantised by Burn: see prequantized".to_owned()),
        };
        let range = match range {
            Ok((dtype, shape)) => {
                let elements = shape
                    .iter()
                    .try_fold(dtype.bytes(), |bytes, &size| bytes.checked_mul(size as u64));
                if elements.is_none() || end.checked_sub(start) != elements {
                    return Err(invalid(format!(
                        "tensor `{name}` of shape {shape:?} and {dtype} is said to lie in bytes {start} to {end}"
                    )));
                }
                Ok(TensorRange {
                    name: name.clone(),
                    dtype,
                    strides: contiguous_strides(&shape),
                    shape,
                    file: Arc::clone(&shared),
                    offset: data_start.saturating_add(start),
                })
            }
            Err(reason) => Err(reason),
        };
        found.add(&name, range);
    }
    // In the order of the file, as loaders read it.
    found.tensors.sort_by_key(|tensor| tensor.offset);
    Ok(found)
}

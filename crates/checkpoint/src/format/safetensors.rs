//! One safetensors file: a length, a JSON header, and the data.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype as StDtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::{Found, Unreadable, header};
use crate::index::contiguous_strides;
use crate::write::{Source, Written};
use crate::{Dtype, Error, TensorRange, file};

/// The data starts at a multiple of this (the header is padded with spaces, as the format allows), so
/// that a reader with alignment needs, such as direct I/O, finds the first tensor on a page.
const DATA_ALIGNMENT: usize = 4096;
/// As safetensors has it.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A dtype in the format's own words.
fn dtype_of(dtype: Dtype) -> StDtype {
    match dtype {
        Dtype::F64 => StDtype::F64,
        Dtype::F32 => StDtype::F32,
        Dtype::F16 => StDtype::F16,
        Dtype::Bf16 => StDtype::BF16,
        Dtype::I64 => StDtype::I64,
        Dtype::I32 => StDtype::I32,
        Dtype::I16 => StDtype::I16,
        Dtype::I8 => StDtype::I8,
        Dtype::U64 => StDtype::U64,
        Dtype::U32 => StDtype::U32,
        Dtype::U16 => StDtype::U16,
        Dtype::U8 => StDtype::U8,
        Dtype::Bool => StDtype::BOOL,
    }
}

pub(super) fn read_index(path: &Path) -> Result<Found, Error> {
    let invalid = |reason: String| Error::invalid(path, reason);
    let (mut file, length) = file::open(path)?;
    let mut start = [0; 8];
    let header_bytes = match file.read_exact(&mut start) {
        Ok(()) => u64::from_le_bytes(start),
        Err(_) => return Err(invalid("is no safetensors file, or truncated".to_owned())),
    };
    let data_start = header_bytes.saturating_add(8);
    if header_bytes > MAX_HEADER_BYTES || data_start > length {
        return Err(invalid(format!(
            "is no valid safetensors file, or truncated: its header has {header_bytes} bytes, the file {length}, and the \
             format allows {MAX_HEADER_BYTES}"
        )));
    }
    let header = header::read(path, &mut file, header_bytes)?;
    header::check_entries(&header).map_err(&invalid)?;
    // Checks that no two tensors overlap, that there are no gaps, and that shapes and lengths agree.
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| invalid(format!("has an invalid safetensors header: {error}")))?;
    let end = data_start.saturating_add(metadata.data_len() as u64);
    if end != length {
        let reason = match end > length {
            true => "it is truncated",
            false => "it holds what no tensor accounts for",
        };
        return Err(invalid(format!(
            "has {length} bytes, and its header tells of {end}: {reason}"
        )));
    }
    let shared: Arc<Path> = path.into();
    drop(header);
    let infos = metadata.tensors();
    let mut found = Found::default();
    let about = metadata.metadata().iter().flatten();
    found.metadata = about
        .map(|(name, text)| (name.clone(), text.clone()))
        .collect();
    for name in metadata.offset_keys() {
        let info = infos[&name];
        let range = |dtype| TensorRange {
            name: name.clone(),
            dtype,
            shape: info.shape.clone(),
            strides: contiguous_strides(&info.shape),
            file: Arc::clone(&shared),
            offset: data_start + info.data_offsets.0 as u64,
        };
        let mut known = Dtype::KNOWN.into_iter();
        match known.find(|dtype| dtype_of(*dtype) == info.dtype) {
            Some(dtype) if dtype.is_weight() => found.add(&name, Ok(range(dtype))),
            _ if info.shape.contains(&0) => {
                found.add(&name, Err(Unreadable::Empty(info.shape.clone())));
            }
            dtype => {
                let reason = Unreadable::Dtype(format!("{:?}", info.dtype));
                found.refuse(&name, reason, dtype.map(range));
            }
        }
    }
    Ok(found)
}

pub(super) fn write(path: &Path, mut source: Source<'_>) -> Result<Written, Error> {
    let mut offset = 0;
    let infos = source.tensors().iter().map(|tensor| {
        let start = offset;
        offset += tensor.bytes() as usize;
        let info = TensorInfo {
            dtype: dtype_of(tensor.dtype),
            shape: tensor.shape.clone(),
            data_offsets: (start, offset),
        };
        (tensor.name.clone(), info)
    });
    // What PyTorch's loaders look for: the framework whose conventions the tensors follow.
    let mut about = BTreeMap::from([("format", "pt")]);
    let own = source.metadata().iter();
    about.extend(own.map(|(name, text)| (&**name, &**text)));
    let metadata = Metadata::new(None, infos.collect())
        .map_err(|error| Error::invalid(path, error.to_string()))?;
    // In the order of names, and not in that of a hash: equal checkpoints are equal files.
    let mut header = Vec::from(b"{\"__metadata__\":");
    serde_json::to_writer(&mut header, &about).expect("texts are valid JSON");
    let tensors = serde_json::to_vec(&metadata).expect("names and numbers are valid JSON");
    if tensors.len() > 2 {
        header.push(b',');
    }
    header.extend_from_slice(&tensors[1..]);
    let data_start = (8 + header.len()).next_multiple_of(DATA_ALIGNMENT);
    header.resize(data_start - 8, b' ');

    let file = File::create(path).map_err(Error::io(path, "create"))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(&(header.len() as u64).to_le_bytes())
        .and_then(|()| file.write_all(&header))
        .map_err(Error::io(path, "write"))?;
    let written = source.write_all(path, &mut file)?;
    let file = file
        .into_inner()
        .map_err(|error| Error::io(path, "write")(error.into_error()))?;
    file.sync_all().map_err(Error::io(path, "write"))?;
    Ok(written)
}

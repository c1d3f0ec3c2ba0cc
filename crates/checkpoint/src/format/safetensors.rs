//! One safetensors file: a length, a JSON header, and the data.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype as StDtype, SafeTensors};

use super::{Found, is_mask_buffer};
use crate::write::{Source, Written};
use crate::{Dtype, Error, TensorRange};

/// The data starts at a multiple of this (the header is padded with spaces, as the format allows), so
/// that a reader with alignment needs, such as direct I/O, finds the first tensor on a page.
const DATA_ALIGNMENT: usize = 4096;

pub(super) fn read_index(path: &Path) -> Result<Found, Error> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    // SAFETY: the map lives for this function only, and only the header's pages are touched. Whoever
    // truncates a checkpoint in this moment gets SIGBUS; the harness opens checkpoints in a process of
    // their own.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map"))?;
    let (header_bytes, metadata) = SafeTensors::read_metadata(&map).map_err(|error| {
        Error::invalid(
            path,
            format!("is no valid safetensors file, or truncated: {error}"),
        )
    })?;
    let data_start = 8 + header_bytes as u64;
    let path: Arc<Path> = path.into();
    let infos = metadata.tensors();
    let mut found = Found {
        tensors: Vec::with_capacity(infos.len()),
        ignored: Vec::new(),
    };
    for name in metadata.offset_keys() {
        let info = infos[&name];
        if is_mask_buffer(&name) {
            found.ignored.push(name);
            continue;
        }
        let dtype = match info.dtype {
            StDtype::F32 => Dtype::F32,
            StDtype::F16 => Dtype::F16,
            StDtype::BF16 => Dtype::Bf16,
            StDtype::I8 => Dtype::I8,
            other => {
                let reason = format!(
                    "tensor `{name}` is {other:?}: weights are f32, f16, bf16, or i8 with scales"
                );
                return Err(Error::invalid(&path, reason));
            }
        };
        found.tensors.push(TensorRange {
            name,
            dtype,
            shape: info.shape.clone(),
            file: Arc::clone(&path),
            offset: data_start + info.data_offsets.0 as u64,
        });
    }
    Ok(found)
}

pub(super) fn write(path: &Path, mut source: Source<'_>) -> Result<Written, Error> {
    let mut offset = 0;
    let infos = source.tensors().iter().map(|tensor| {
        let start = offset;
        offset += tensor.bytes() as usize;
        let info = TensorInfo {
            dtype: match tensor.dtype {
                Dtype::F32 => StDtype::F32,
                Dtype::F16 => StDtype::F16,
                Dtype::Bf16 => StDtype::BF16,
                Dtype::I8 => StDtype::I8,
            },
            shape: tensor.shape.clone(),
            data_offsets: (start, offset),
        };
        (tensor.name.clone(), info)
    });
    // What PyTorch's loaders look for: the framework whose conventions the tensors follow.
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(about), infos.collect())
        .map_err(|error| Error::invalid(path, error.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).expect("names and numbers are valid JSON");
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

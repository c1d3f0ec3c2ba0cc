//! Writing what `torch.save(state_dict, path)` writes, for `torch.load(path, weights_only=True)`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::tensor::storage_of;
use crate::write::{Source, Written};
use crate::{Error, TensorMeta, quoted};

/// PyTorch aligns storages to this, so that they can be mapped and used in place.
const STORAGE_ALIGNMENT: u16 = 64;

pub(crate) fn write(path: &Path, mut source: Source<'_>) -> Result<Written, Error> {
    let zip_error = |error: zip::result::ZipError| Error::io(path, "write")(error.into());
    let state_dict = state_dict(path, source.tensors())?;
    let file = File::create(path).map_err(Error::io(path, "create"))?;
    let mut zip = ZipWriter::new(BufWriter::with_capacity(1 << 20, file));
    let options = |bytes: u64| {
        SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .with_alignment(STORAGE_ALIGNMENT)
            .large_file(bytes >= u32::MAX as u64)
    };
    let small = |zip: &mut ZipWriter<_>, name: &str, bytes: &[u8]| {
        zip.start_file(format!("model/{name}"), options(bytes.len() as u64))
            .map_err(zip_error)?;
        zip.write_all(bytes).map_err(Error::io(path, "write"))
    };
    small(&mut zip, "data.pkl", &state_dict)?;
    small(&mut zip, "byteorder", b"little")?;
    let mut written = Written::default();
    for (key, tensor) in source.tensors().to_vec().iter().enumerate() {
        zip.start_file(format!("model/data/{key}"), options(tensor.bytes()))
            .map_err(zip_error)?;
        let digest = source.write_one(path, tensor, &mut zip)?;
        written.digests.push((tensor.name.clone(), digest));
    }
    small(&mut zip, "version", b"3\n")?;
    let file = zip.finish().map_err(zip_error)?;
    let file = file
        .into_inner()
        .map_err(|error| Error::io(path, "write")(error.into_error()))?;
    file.sync_all().map_err(Error::io(path, "write"))?;
    Ok(written)
}

/// The class of the storage that a tensor lies in.
fn storage(path: &Path, tensor: &TensorMeta) -> Result<&'static str, Error> {
    storage_of(tensor.dtype).ok_or_else(|| {
        let (name, dtype) = (quoted(&tensor.name), tensor.dtype);
        let reason = format!(
            "cannot hold the tensor {name}: PyTorch has no storage for {dtype}, so save safetensors"
        );
        Error::invalid(path, reason)
    })
}

/// The pickle of an `OrderedDict` of contiguous tensors, each in a storage of its own.
fn state_dict(path: &Path, tensors: &[TensorMeta]) -> Result<Vec<u8>, Error> {
    const ORDERED_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = b"\x80\x02".to_vec();
    out.extend(ORDERED_DICT);
    out.push(b'(');
    for (key, tensor) in tensors.iter().enumerate() {
        string(&mut out, &tensor.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        string(&mut out, "storage");
        out.extend(format!("ctorch\n{}\n", storage(path, tensor)?).bytes());
        string(&mut out, &key.to_string());
        string(&mut out, "cpu");
        int(&mut out, tensor.shape.iter().product());
        out.extend(b"tQK\x00"); // the storage's persistent id; offset 0 in it
        tuple(&mut out, tensor.shape.iter().copied());
        let strides = (1..=tensor.shape.len()).map(|next| tensor.shape[next..].iter().product());
        tuple(&mut out, strides);
        out.push(0x89); // requires_grad = False
        out.extend(ORDERED_DICT); // no backward hooks
        out.extend(b"tR");
    }
    out.extend(b"u.");
    Ok(out)
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

fn int(out: &mut Vec<u8>, value: usize) {
    out.extend([0x8a, 8]); // LONG1 of eight bytes
    out.extend((value as i64).to_le_bytes());
}

fn tuple(out: &mut Vec<u8>, values: impl Iterator<Item = usize>) {
    out.push(b'(');
    values.for_each(|value| int(out, value));
    out.push(b't');
}

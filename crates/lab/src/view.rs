//! Tensors over mapped pages: unified memory's way to load without a copy.

use std::mem::MaybeUninit;

use burn::tensor::{Bytes, DType, Tensor, TensorData};
use checkpoint::{Dtype, PrivateMap, TensorRange};
use cubecl_common::bytes::{AllocationController, AllocationProperty};
use gpt2::ShardMut;

use crate::{Error, Platform, Run};

/// Memory of Burn's that is a map's.
struct MappedMemory(PrivateMap);

impl AllocationController for MappedMemory {
    /// Of the first element; the map itself begins at a page.
    fn alloc_align(&self) -> usize {
        1 << self.0.bytes().as_ptr().addr().trailing_zeros().min(12)
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        let bytes = self.0.bytes_mut();
        // SAFETY: initialised bytes are `MaybeUninit` bytes, and the caller promises to write none that are not.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
    }

    fn memory(&self) -> &[MaybeUninit<u8>] {
        let bytes = self.0.bytes();
        // SAFETY: initialised bytes are `MaybeUninit` bytes.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
    }
}

impl<B: Platform> Run<B> {
    /// A flat tensor whose memory is the map's pages, which hold rows of `tensor`, as they are stored. On unified memory:
    /// elsewhere Burn would copy it to the device.
    ///
    /// # Errors
    ///
    /// If the tensor does not begin at a multiple of its element's size in the file, as some writers leave it, or does not
    /// lie in a row.
    pub fn view(&self, tensor: &TensorRange, map: PrivateMap) -> Result<Tensor<B, 1>, Error> {
        if !tensor.is_contiguous() {
            return Err(self.no_view(tensor, "has gaps between its elements"));
        }
        let (memory, dtype) = self.memory_of(tensor, map)?;
        let elements = memory.len() / tensor.dtype.bytes() as usize;
        let data = TensorData::from_bytes(memory, [elements], dtype);
        Ok(Tensor::from_data(data, (&self.device, dtype)))
    }

    /// Makes the map's pages, which hold the shard's rows of `tensor`, the shard's value. A matrix that lies in the file
    /// otherwise than row by row becomes one with the file's strides.
    ///
    /// # Errors
    ///
    /// As [`Run::view`]; a vector must lie in a row.
    pub fn assign_view(
        &self,
        shard: ShardMut<'_, B>,
        tensor: &TensorRange,
        map: PrivateMap,
    ) -> Result<(), Error> {
        match (&tensor.strides[..], &shard.shape()[..]) {
            (&[down, along], &[rows, columns]) if !tensor.is_contiguous() => {
                let (memory, dtype) = self.memory_of(tensor, map)?;
                shard.assign_matrix(B::strided(memory, [rows, columns], [down, along], dtype));
            }
            _ => shard.assign(self.view(tensor, map)?),
        }
        self.recorder.mark();
        Ok(())
    }

    /// A map as Burn's memory.
    fn memory_of(&self, tensor: &TensorRange, map: PrivateMap) -> Result<(Bytes, DType), Error> {
        let (bytes, element) = (map.bytes().len(), tensor.dtype.bytes() as usize);
        if !map.bytes().as_ptr().addr().is_multiple_of(element) {
            let why = format!("does not begin at a multiple of {element} bytes");
            return Err(self.no_view(tensor, &why));
        }
        let dtype = match tensor.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::Bf16 => DType::BF16,
            Dtype::I8 => DType::I8,
            other => return Err(self.no_view(tensor, &format!("is of {other}"))),
        };
        // SAFETY: all bytes of a map are initialised.
        let memory = unsafe { Bytes::from_controller(Box::new(MappedMemory(map)), bytes) };
        Ok((memory, dtype))
    }

    fn no_view(&self, tensor: &TensorRange, why: &str) -> Error {
        Error::Setup(format!(
            "{}: `{}` {why}, so that it cannot be used where it lies: write the file again with `harness prepare \
             --from`, or use mmap-assign",
            self.checkpoint.display(),
            tensor.name
        ))
    }
}

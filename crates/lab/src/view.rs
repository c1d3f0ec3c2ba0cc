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
    /// Makes the map's pages, which hold the shard's rows of `tensor`, the shard's value: in the checkpoint's dtype, and
    /// with its strides, where it lies in the file otherwise than a parameter does. On unified memory: elsewhere Burn
    /// would copy it to the device.
    ///
    /// # Errors
    ///
    /// If the tensor does not begin at a multiple of its element's size in the file, as some writers leave it.
    pub fn assign_view(
        &self,
        shard: ShardMut<'_, B>,
        tensor: &TensorRange,
        map: PrivateMap,
    ) -> Result<(), Error> {
        let (bytes, element) = (map.bytes().len(), tensor.dtype.bytes() as usize);
        if !map.bytes().as_ptr().addr().is_multiple_of(element) {
            return Err(Error::Setup(format!(
                "{}: a tensor's first byte is no multiple of {element}, so that it cannot be used where it lies: \
                 write the file again with `harness prepare --from`, or use mmap-assign",
                self.checkpoint.display()
            )));
        }
        let dtype = match tensor.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::Bf16 => DType::BF16,
            Dtype::I8 => DType::I8,
        };
        // SAFETY: all bytes of a map are initialised.
        let memory = unsafe { Bytes::from_controller(Box::new(MappedMemory(map)), bytes) };
        match (tensor.is_contiguous(), &shard.shape()[..]) {
            (false, &[rows, columns]) => {
                let strides = [tensor.strides[0], tensor.strides[1]];
                shard.assign_matrix(B::strided(memory, [rows, columns], strides, dtype));
            }
            (false, _) => {
                return Err(Error::Setup(format!(
                    "{}: `{}` has gaps between its elements, and cannot be used where it lies: use mmap-assign",
                    self.checkpoint.display(),
                    tensor.name
                )));
            }
            (true, _) => {
                let data = TensorData::from_bytes(memory, [bytes / element], dtype);
                shard.assign(Tensor::from_data(data, &self.device));
            }
        }
        self.recorder.mark();
        Ok(())
    }
}

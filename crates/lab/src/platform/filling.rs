//! Tensors that are filled piece by piece.

use burn::tensor::backend::Backend;
use burn::tensor::{Bytes, Tensor};

use crate::Error;

/// A new tensor on its way to be filled: its memory is there, what lies in it is not.
pub trait Filling<B: Backend>: Send {
    /// The tensor's own memory, where the host can write there (unified memory): fill it, and nothing else
    /// needs to be done.
    fn memory(&mut self) -> Option<&mut [u8]>;

    /// Sends a piece to its place in the tensor, where [`Filling::memory`] has none. Waits where as many are on their
    /// way as the staging buffer has beside the one that is read: see [`Tuning::PIECES`](crate::Tuning::PIECES).
    /// `offset_bytes` is a multiple of 4, and so is the piece's length, but for a tensor's end.
    ///
    /// # Errors
    ///
    /// If the device reports one.
    fn write(&mut self, offset_bytes: u64, piece: Bytes) -> Result<(), Error>;

    /// The tensor, flat.
    fn finish(self) -> Tensor<B, 1>;
}

//! Streaming: a tensor's bytes from the file to their place, with a small bounded buffer between them or none.
//!
//! ```text
//!  unified     file ──read──────────────▶ the tensor's own memory
//!  discrete    file ──read──▶ piece ────▶ device buffer      pieces of the staging buffer: one is read while
//!                             piece ────▶   at its offset    the others are written
//! ```

use std::ops::Range;

use burn::tensor::Tensor;
use checkpoint::{Access, Checkpoint, Reader, TensorRange};
use gpt2::TensorMut;

use crate::platform::Filling;
use crate::{Error, Phase, Platform, Run};

impl<B: Platform> Run<B> {
    /// Begins a tensor on the device, of the run's dtype, that is filled piece by piece.
    ///
    /// # Errors
    ///
    /// If the device cannot bind so large a tensor.
    pub fn begin(&self, elements: usize) -> Result<B::Filling, Error> {
        let bytes = elements as u64 * self.dtype.bytes();
        self.check_tensor_bytes(bytes)?;
        let filling = B::begin(&self.device, elements, self.dtype);
        self.recorder.mark();
        Ok(filling)
    }

    /// Streams rows of a tensor into a new tensor on the device: flat, in the checkpoint's dtype.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or the device refuses.
    pub fn stream(
        &self,
        reader: &mut Reader,
        tensor: &TensorRange,
        rows: Range<usize>,
    ) -> Result<Tensor<B, 1>, Error> {
        let range = tensor.rows(rows.clone());
        let elements = (range.end - range.start) / tensor.dtype.bytes();
        self.enter(Phase::Materialise);
        let filling = self.begin(elements as usize)?;
        self.enter(Phase::Read);
        self.fill(reader, tensor, rows, filling)
    }

    /// [`Run::stream`] into a tensor that is begun already, and without entering a phase: its mark would wait for what is on
    /// its way to the device.
    ///
    /// # Errors
    ///
    /// As [`Run::stream`].
    pub fn fill(
        &self,
        reader: &mut Reader,
        tensor: &TensorRange,
        rows: Range<usize>,
        mut filling: B::Filling,
    ) -> Result<Tensor<B, 1>, Error> {
        let range = tensor.rows(rows);
        if let Some(memory) = filling.memory() {
            reader.read(tensor, range.start, memory)?;
        } else {
            // No marks in between: to read the device's would wait for what is written, and the next piece is to be
            // read meanwhile. Nothing is allocated there either.
            let step = tensor.piece_bytes(self.tuning.piece_bytes());
            for start in range.clone().step_by(step) {
                let length = (range.end - start).min(step as u64);
                let mut piece = B::staging_buffer(&self.device, length as usize);
                reader.read(tensor, start, &mut piece)?;
                filling.write(start - range.start, piece)?;
            }
        }
        Ok(filling.finish())
    }

    /// [`Run::stream`] for a whole tensor of the checkpoint, in the pieces that `destination` holds it in.
    ///
    /// # Errors
    ///
    /// As [`Run::stream`], or if the checkpoint has no such tensor.
    pub fn stream_tensor(
        &self,
        reader: &mut Reader,
        checkpoint: &Checkpoint,
        destination: &TensorMut<'_, B>,
    ) -> Result<Vec<Tensor<B, 1>>, Error> {
        let tensor = checkpoint.tensor(&destination.spec.name, &destination.spec.shape)?;
        let shards = destination.shards.iter();
        shards
            .map(|shard| self.stream(reader, tensor, shard.rows.clone()))
            .collect()
    }

    /// A reader through the page cache.
    pub fn reader(&self) -> Reader {
        Reader::new(Access::Buffered)
    }
}

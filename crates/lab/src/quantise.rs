//! 8-bit integers with a scale for every few elements of a row: Burn's symmetric per-block scheme.
//!
//! ```text
//!  row      │ 32 × f32 │ 32 × f32 │ …       128 bytes a block
//!  values   │ 32 × i8  │ 32 × i8  │ …        32 bytes
//!  scales   │ f32      │ f32      │ …         4 bytes: largest magnitude of the block / 127
//! ```
//!
//! So a matrix takes 36/128 = 0.281 of its f32 bytes. A block lies within a row: Burn 0.21 gives wrong values
//! in silence on GPU backends, and panics on flex, where it does not divide the row.

use burn::tensor::Tensor;
use burn::tensor::quantization::{
    QuantLevel, QuantMode, QuantParam, QuantScheme, QuantStore, QuantValue,
};

use crate::{Error, Platform, Run};

/// Elements for each scale.
pub const BLOCK_ELEMENTS: usize = 32;
/// The largest magnitude of a value.
const LARGEST: f32 = 127.0;

/// Rows of a quantised matrix.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Quantised {
    /// Row after row.
    pub values: Vec<i8>,
    /// One for each block of [`BLOCK_ELEMENTS`] values, or for each row that is shorter.
    pub scales: Vec<f32>,
}

/// How many elements of rows of this length share a scale: [`BLOCK_ELEMENTS`], or the largest power of two below
/// that divides the row.
pub fn block_elements(columns: usize) -> usize {
    BLOCK_ELEMENTS.min(1 << columns.trailing_zeros())
}

impl Quantised {
    /// With room for a matrix of this shape, so that nothing is copied while it grows.
    pub fn with_capacity(rows: usize, columns: usize) -> Quantised {
        let elements = rows * columns;
        Quantised {
            values: Vec::with_capacity(elements),
            scales: Vec::with_capacity(elements / block_elements(columns)),
        }
    }

    /// Quantises whole blocks and appends them: to the nearest multiple of the block's scale.
    pub fn extend(&mut self, floats: &[f32], block_elements: usize) {
        for block in floats.chunks_exact(block_elements) {
            let magnitude = block.iter().fold(0f32, |most, value| most.max(value.abs()));
            // The largest of numbers passes over what is none: such a block is to stand for none.
            let is_none = block
                .iter()
                .fold(false, |is_none, value| is_none | value.is_nan());
            let scale = match is_none {
                true => f32::NAN,
                false => scale_of(magnitude),
            };
            let inverse = 1.0 / scale;
            self.scales.push(scale);
            let values = block
                .iter()
                .map(|value| (value * inverse).round().clamp(-LARGEST, LARGEST) as i8);
            self.values.extend(values);
        }
    }
}

/// The name of the tensor with a quantised matrix's scales, in a checkpoint that holds it quantised.
pub fn scales_name(name: &str) -> String {
    format!("{name}.scales")
}

/// A block of zeros has a scale, too.
pub(crate) fn scale_of(magnitude: f32) -> f32 {
    let scale = magnitude / LARGEST;
    if scale.is_normal() || scale.is_infinite() {
        scale
    } else {
        f32::MIN_POSITIVE
    }
}

fn scheme(block_elements: usize) -> QuantScheme {
    QuantScheme {
        value: QuantValue::Q8S,
        param: QuantParam::F32,
        // Packed storage would ask that 4 divides the vocabulary, and GPT-2's is 50257.
        store: QuantStore::Native,
        level: QuantLevel::block([block_elements as u8]),
        mode: QuantMode::Symmetric,
    }
}

impl<B: Platform> Run<B> {
    /// A quantised matrix `[rows, columns]` on the device.
    ///
    /// # Errors
    ///
    /// If the device cannot bind so large a tensor.
    pub fn upload_quantised(
        &self,
        matrix: Quantised,
        [rows, columns]: [usize; 2],
    ) -> Result<Tensor<B, 2>, Error> {
        self.check_tensor_bytes(matrix.values.len() as u64)?;
        let scheme = scheme(block_elements(columns));
        let tensor = B::quantised(&self.device, matrix, [rows, columns], scheme);
        B::release_uploaded(&self.device)?;
        self.recorder.mark();
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_within_half_a_step_of_what_it_was() {
        let floats: Vec<f32> = (0..256)
            .map(|value| ((value * 37) % 101) as f32 - 50.0)
            .collect();
        let mut matrix = Quantised::with_capacity(4, 64);
        matrix.extend(&floats, 32);
        assert_eq!((matrix.values.len(), matrix.scales.len()), (256, 8));
        let blocks = floats.chunks(32).zip(matrix.values.chunks(32));
        for ((floats, values), scale) in blocks.zip(&matrix.scales) {
            for (float, &value) in floats.iter().zip(values) {
                assert!((f32::from(value) * scale - float).abs() <= 0.5001 * scale);
            }
        }
    }

    #[test]
    fn a_block_with_what_is_no_number_stands_for_none() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut floats = [1.0; 64];
            floats[40] = bad;
            let mut matrix = Quantised::default();
            matrix.extend(&floats, 32);
            let stands_for = |at: usize| f32::from(matrix.values[at]) * matrix.scales[at / 32];
            assert!(
                stands_for(0).is_finite() && stands_for(40).is_nan(),
                "{bad}"
            );
        }
    }

    #[test]
    fn zeros_stay_zeros_and_blocks_divide_their_rows() {
        let mut zeros = Quantised::default();
        zeros.extend(&[0.0; 32], 32);
        assert!(zeros.values.iter().all(|&value| value == 0) && zeros.scales[0] > 0.0);
        let blocks = [768, 1024, 1600, 48, 7].map(block_elements);
        assert_eq!(blocks, [32, 32, 32, 16, 1]);
    }
}

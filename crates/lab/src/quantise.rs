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

pub use featherweight::change::Quantised;

use crate::{Error, Platform, Run};

/// Elements for each scale.
pub const BLOCK_ELEMENTS: usize = 32;
/// How many elements of rows of this length share a scale: [`BLOCK_ELEMENTS`], or the largest power of two below
/// that divides the row.
pub fn block_elements(columns: usize) -> usize {
    BLOCK_ELEMENTS.min(1 << columns.trailing_zeros())
}

/// The name of the tensor with a quantised matrix's scales, in a checkpoint that holds it quantised.
pub fn scales_name(name: &str) -> String {
    format!("{name}.scales")
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
        let scheme = scheme(block_elements(columns));
        Ok(self.place.quantised(matrix, &[rows, columns], scheme)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_stay_zeros_and_blocks_divide_their_rows() {
        let mut zeros = Quantised::default();
        zeros.extend(&[0.0; 32], 32);
        assert!(zeros.values.iter().all(|&value| value == 0) && zeros.scales[0] > 0.0);
        let blocks = [768, 1024, 1600, 48, 7].map(block_elements);
        assert_eq!(blocks, [32, 32, 32, 16, 1]);
    }
}

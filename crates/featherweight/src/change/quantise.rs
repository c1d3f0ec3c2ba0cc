//! 8-bit integers with a scale for each block of a row, or for the whole tensor: Burn's symmetric schemes.
//!
//! ```text
//!  row      │ 32 × f32 │ 32 × f32 │ …       128 bytes a block
//!  values   │ 32 × i8  │ 32 × i8  │ …        32 bytes
//!  scales   │ f32      │ f32      │ …         4 bytes: largest magnitude of the block / 127
//! ```
//!
//! A block lies within a row: Burn 0.21 gives wrong values in silence on GPU backends, and panics on flex, where it does not
//! divide the row.

/// The largest magnitude of a value.
const LARGEST: f32 = 127.0;

/// A tensor as integers and scales.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Quantised {
    /// Row after row.
    pub values: Vec<i8>,
    /// One for each block of values.
    pub scales: Vec<f32>,
}

impl Quantised {
    /// With room for so many elements, so that nothing is copied while it grows.
    pub fn with_capacity(elements: usize, block_elements: usize) -> Quantised {
        Quantised {
            values: Vec::with_capacity(elements),
            scales: Vec::with_capacity(elements / block_elements.max(1)),
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
            self.append(block, scale);
        }
    }

    fn append(&mut self, block: &[f32], scale: f32) {
        let inverse = 1.0 / scale;
        self.scales.push(scale);
        let values = block
            .iter()
            .map(|value| (value * inverse).round().clamp(-LARGEST, LARGEST) as i8);
        self.values.extend(values);
    }
}

/// The scale of a block whose largest magnitude this is. A block of zeros has one, too.
pub fn scale_of(magnitude: f32) -> f32 {
    let scale = magnitude / LARGEST;
    if scale.is_normal() || scale.is_infinite() {
        scale
    } else {
        f32::MIN_POSITIVE
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
        let mut matrix = Quantised::with_capacity(256, 32);
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
}

//! Elements of one dtype as those of another.

use checkpoint::Dtype;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Appends little-endian elements of `dtype` as floats.
///
/// # Panics
///
/// If no weights are of `dtype`.
pub fn extend_as_f32(values: &mut Vec<f32>, dtype: Dtype, bytes: &[u8]) {
    let halves = || bytes.as_chunks::<2>().0.iter().copied();
    match dtype {
        Dtype::F32 => {
            let words = bytes.as_chunks::<4>().0.iter();
            values.extend(words.map(|&word| f32::from_le_bytes(word)));
        }
        Dtype::I8 => values.extend(bytes.iter().map(|&byte| f32::from(byte as i8))),
        Dtype::F16 => values.extend(halves().map(|half| f16::from_le_bytes(half).to_f32())),
        Dtype::Bf16 => values.extend(halves().map(|half| bf16::from_le_bytes(half).to_f32())),
        other => panic!("no weights are of {other}"),
    }
}

/// Appends floats as little-endian elements of `dtype`, rounded to the nearest.
///
/// # Panics
///
/// If `dtype` is no float.
pub fn extend_from_f32(bytes: &mut Vec<u8>, dtype: Dtype, floats: &[f32]) {
    let start = bytes.len();
    bytes.resize(start + floats.len() * dtype.bytes() as usize, 0);
    round_into(&mut bytes[start..], dtype, floats);
}

/// Writes floats as little-endian elements of `dtype`, rounded to the nearest, over `bytes`, which has their length
/// and is aligned to them.
///
/// # Panics
///
/// If `dtype` is no float, or `bytes` has another length or alignment.
pub fn round_into(bytes: &mut [u8], dtype: Dtype, floats: &[f32]) {
    match dtype {
        Dtype::F32 => bytemuck::cast_slice_mut(bytes).copy_from_slice(floats),
        Dtype::F16 => bytemuck::cast_slice_mut::<_, f16>(bytes).convert_from_f32_slice(floats),
        Dtype::Bf16 => bytemuck::cast_slice_mut::<_, bf16>(bytes).convert_from_f32_slice(floats),
        Dtype::I8 => panic!("an 8-bit integer has a scale: see quantise"),
        other => panic!("no model is of {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_rounded_to_the_nearest_and_come_back() {
        let floats = [1.0f32, -0.333_333_34, 65504.0, 1e-8, 0.0];
        for dtype in Dtype::ALL {
            let (mut bytes, mut again) = (Vec::new(), Vec::new());
            extend_from_f32(&mut bytes, dtype, &floats);
            extend_as_f32(&mut again, dtype, &bytes);
            let expected = floats.map(|value| match dtype {
                Dtype::F16 => f16::from_f32(value).to_f32(),
                Dtype::Bf16 => bf16::from_f32(value).to_f32(),
                _ => value,
            });
            assert_eq!(again, expected, "{dtype}");
        }
    }
}

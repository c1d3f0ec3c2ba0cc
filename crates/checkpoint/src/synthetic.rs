//! Deterministic weights: the same bytes for the same seed, name and dtype, on every machine.

use half::{bf16, f16};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::{Dtype, Error, TensorMeta};

/// Weights drawn uniformly from `centre ± spread`, from a ChaCha8 stream of their own for each tensor.
#[derive(Debug, Clone, Copy)]
pub struct Synthetic {
    /// Chooses the weights.
    pub seed: u64,
    /// The middle of the range.
    pub centre: f32,
    /// Half the width of the range.
    pub spread: f32,
}

impl Synthetic {
    /// Hands the weights of `tensor` to `sink`, in pieces of at most 262,144 elements.
    ///
    /// # Errors
    ///
    /// What `sink` returns.
    pub fn fill(
        &self,
        tensor: &TensorMeta,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        const PIECE_ELEMENTS: usize = 1 << 18;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(tensor.name.as_bytes());
        let mut random = ChaCha8Rng::from_seed(*hasher.finalize().as_bytes());
        let elements: usize = tensor.shape.iter().product();
        let mut bits = vec![0u8; 4 * PIECE_ELEMENTS.min(elements)];
        let mut piece = Vec::with_capacity(bits.len());
        let mut left = elements;
        while left > 0 {
            let count = PIECE_ELEMENTS.min(left);
            random.fill_bytes(&mut bits[..4 * count]);
            let words = bits[..4 * count].as_chunks::<4>().0.iter();
            let values = words.map(|&word| {
                // 24 random bits fill the mantissa of a float in [-1, 1) exactly.
                let unit = (u32::from_le_bytes(word) >> 8) as f32 / (1 << 23) as f32 - 1.0;
                self.centre + self.spread * unit
            });
            piece.clear();
            match tensor.dtype {
                Dtype::F32 => values.for_each(|v| piece.extend(v.to_le_bytes())),
                Dtype::F16 => values.for_each(|v| piece.extend(f16::from_f32(v).to_le_bytes())),
                Dtype::Bf16 => values.for_each(|v| piece.extend(bf16::from_f32(v).to_le_bytes())),
                Dtype::F64 => values.for_each(|v| piece.extend(f64::from(v).to_le_bytes())),
                // Of weights below one. What has no sign has none below zero.
                Dtype::I8 => whole(values).for_each(|v| piece.push(v as i8 as u8)),
                Dtype::I16 => whole(values).for_each(|v| piece.extend((v as i16).to_le_bytes())),
                Dtype::I32 => whole(values).for_each(|v| piece.extend((v as i32).to_le_bytes())),
                Dtype::I64 => whole(values).for_each(|v| piece.extend((v as i64).to_le_bytes())),
                Dtype::U8 => whole(values).for_each(|v| piece.push(v as u8)),
                Dtype::U16 => whole(values).for_each(|v| piece.extend((v as u16).to_le_bytes())),
                Dtype::U32 => whole(values).for_each(|v| piece.extend((v as u32).to_le_bytes())),
                Dtype::U64 => whole(values).for_each(|v| piece.extend((v as u64).to_le_bytes())),
                Dtype::Bool => values.for_each(|v| piece.push(u8::from(v > self.centre))),
            }
            sink(&piece)?;
            left -= count;
        }
        Ok(())
    }
}

/// Weights as integers, at a scale of 1/127.
fn whole(weights: impl Iterator<Item = f32>) -> impl Iterator<Item = f32> {
    weights.map(|weight| (127.0 * weight).round())
}

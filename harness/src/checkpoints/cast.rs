//! A tensor's bytes as those of a dtype that a person chose.

use checkpoint::{Dtype, Error, TensorRange};
use lab::convert::{extend_as_f32, extend_from_f32};

/// How much is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Hands out the tensor's bytes in `dtype`, rounded to the nearest where it is narrower, piece by piece.
pub fn read(
    tensor: &TensorRange,
    dtype: Dtype,
    mut each: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    if tensor.dtype == dtype {
        return tensor.read_in_pieces(PIECE_BYTES, each);
    }
    let (mut floats, mut bytes) = (Vec::new(), Vec::new());
    tensor.read_in_pieces(PIECE_BYTES, |piece| {
        floats.clear();
        bytes.clear();
        extend_as_f32(&mut floats, tensor.dtype, piece);
        extend_from_f32(&mut bytes, dtype, &floats);
        each(&bytes)
    })
}

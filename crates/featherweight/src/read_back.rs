//! A tensor's bytes from wherever it lies, in pieces that are small against it.

use burn::tensor::backend::Backend;
use burn::tensor::{BasicOps, BoolStore, DType, Tensor, TensorKind};

use crate::Error;

/// How much is read at once.
const PIECE_BYTES: usize = 4 << 20;

/// Hands out the bytes, row-major and without gaps, as they are stored in a file: booleans as one byte each.
///
/// # Errors
///
/// If the device cannot be read; or what `each` returns.
pub(crate) fn read_back<B: Backend, const D: usize, K, E: From<Error>>(
    tensor: &Tensor<B, D, K>,
    each: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E>
where
    K: TensorKind<B> + BasicOps<B>,
{
    let shape = tensor.shape();
    let bytes = shape.num_elements() * tensor.dtype().size();
    if bytes == 0 {
        return Ok(());
    }
    if bytes <= PIECE_BYTES {
        return hand_out(tensor.clone(), each);
    }
    let row_bytes = bytes / shape[0];
    if row_bytes > PIECE_BYTES {
        // Few long rows: of a tensor that lies in a row, a view as a vector costs nothing.
        let elements = shape.num_elements();
        return read_back(&tensor.clone().reshape([elements]), each);
    }
    let step = PIECE_BYTES / row_bytes;
    for start in (0..shape[0]).step_by(step) {
        let rows = step.min(shape[0] - start);
        hand_out(tensor.clone().narrow(0, start, rows), each)?;
    }
    Ok(())
}

fn hand_out<B: Backend, const D: usize, K, E: From<Error>>(
    tensor: Tensor<B, D, K>,
    each: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E>
where
    K: TensorKind<B> + BasicOps<B>,
{
    let device = tensor.device();
    let data = tensor.try_into_data();
    let data = data.map_err(|error| Error::device(&device, format!("{error:?}")))?;
    match data.dtype {
        DType::Bool(BoolStore::U32) => {
            let (words, _) = data.bytes.as_chunks::<4>();
            let narrow: Vec<u8> = words.iter().map(|word| u8::from(*word != [0; 4])).collect();
            each(&narrow)
        }
        _ => each(&data.bytes),
    }
}

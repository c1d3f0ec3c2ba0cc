//! Matrices that are quantised on their way to a backend, a tensor at a time. (Burn 0.21.)

use burn::tensor::backend::Backend;
use burn::tensor::quantization::{
    QuantLevel, QuantMode, QuantParam, QuantScheme, QuantStore, QuantValue,
};
use burn::tensor::{DType, Tensor};
use checkpoint::Access;

use crate::Error;
use crate::carry::{PieceReader, Source};
use crate::change::{Cast, Quantised};
use crate::place::Place;

/// What is read and quantised at once.
const PIECE_BYTES: usize = 1 << 20;

/// That the scheme is one that is quantised to here.
pub(crate) fn check(scheme: &QuantScheme, is_verified: bool) -> Result<(), Error> {
    let unsupported = |reason: &str| Err(Error::Unsupported(reason.to_owned()));
    let is_known = scheme.value == QuantValue::Q8S
        && scheme.param == QuantParam::F32
        && scheme.store == QuantStore::Native
        && scheme.mode == QuantMode::Symmetric
        && block_elements(scheme).is_some();
    if !is_known {
        return unsupported(
            "this scheme is not quantised to while loading: symmetric Q8S by block of a row, f32 scales and native storage is; \
             load without, and use Burn's Quantizer",
        );
    }
    if is_verified {
        return unsupported(
            "what is quantised is not what the file holds: .verified() cannot compare it",
        );
    }
    Ok(())
}

/// The elements of a row that share a scale; `None` for other schemes.
fn block_elements(scheme: &QuantScheme) -> Option<usize> {
    match scheme.level {
        QuantLevel::Block(block) => match block.as_slice() {
            [elements] => Some(usize::from(*elements)),
            _ => None,
        },
        QuantLevel::Tensor => None,
    }
}

/// Whether a tensor of this shape is quantised: a matrix whose rows the block divides.
pub(crate) fn fits(scheme: &QuantScheme, shape: &[usize]) -> bool {
    match (shape, block_elements(scheme)) {
        (&[_, columns], Some(block)) => block > 0 && columns > 0 && columns.is_multiple_of(block),
        _ => false,
    }
}

/// The bytes of a matrix that is quantised: of each element one, and of each block four.
pub(crate) fn bytes(scheme: &QuantScheme, shape: &[usize]) -> u64 {
    let elements: u64 = shape.iter().map(|&size| size as u64).product();
    elements + 4 * elements / block_elements(scheme).unwrap_or(1).max(1) as u64
}

/// Reads a matrix, quantises it, and hands it to the backend.
pub(crate) fn load<B: Backend, const D: usize>(
    source: &Source,
    scheme: QuantScheme,
    place: &Place<B>,
) -> Result<Tensor<B, D>, Error> {
    let block = block_elements(&scheme).unwrap_or(1);
    let as_stored = source.tensor.clone();
    let source = Source {
        cast: Cast::new(as_stored.dtype, DType::F32)
            .ok_or_else(|| Error::Unsupported(format!("{} cannot be quantised", as_stored.name)))?,
        tensor: as_stored,
    };
    let elements = source.bytes() as usize / 4;
    let mut matrix = Quantised::with_capacity(elements, block);
    let mut reader = PieceReader::new(Access::Buffered);
    // Whole blocks.
    let step = (source.piece_bytes(PIECE_BYTES) / (4 * block)).max(1) * 4 * block;
    let (mut bytes, mut floats) = (vec![0; step], vec![0f32; step / 4]);
    for start in (0..source.bytes()).step_by(step) {
        let length = (source.bytes() - start).min(step as u64) as usize;
        reader.read(&source, start..start + length as u64, &mut bytes[..length])?;
        let (words, _) = bytes[..length].as_chunks::<4>();
        for (word, float) in words.iter().zip(&mut floats) {
            *float = f32::from_le_bytes(*word);
        }
        matrix.extend(&floats[..length / 4], block);
    }
    place.quantised(matrix, &source.tensor.shape, scheme)
}

//! One thread, tensor after tensor.

use checkpoint::Access;

use super::{PieceReader, Source};
use crate::Error;
use crate::place::{Fill, Staging};

pub(super) fn carry(
    sources: &[Source],
    fills: &mut [&mut dyn Fill],
    staging: Staging,
) -> Result<(), Error> {
    let mut reader = PieceReader::new(Access::Buffered);
    for (source, fill) in sources.iter().zip(fills) {
        if let Some(memory) = fill.memory() {
            reader.read(source, 0..source.bytes(), memory)?;
            continue;
        }
        for range in source.pieces(staging.piece_bytes()) {
            let mut piece = fill.staging((range.end - range.start) as usize, staging);
            reader.read(source, range.clone(), &mut piece)?;
            fill.write(range.start, piece)?;
        }
    }
    Ok(())
}

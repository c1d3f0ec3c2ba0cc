//! One thread, tensor after tensor.

use checkpoint::{Access, Reader};

use super::{PieceReader, Source, in_place};
use crate::Error;
use crate::place::{Fill, Staging};

pub(super) fn carry(
    sources: &[Source],
    fills: &mut [&mut dyn Fill],
    staging: Staging,
) -> Result<(), Error> {
    let mut reader = PieceReader::new(Access::Buffered);
    let panel_bytes = Reader::panel_bytes(Access::Buffered, 0);
    if let Some(mut jobs) = in_place::jobs(sources, fills, panel_bytes, |_| in_place::PIECE_BYTES) {
        return jobs.try_for_each(|job| job.read(&mut reader));
    }
    for (source, fill) in sources.iter().zip(fills) {
        for range in source.pieces(staging.piece_bytes()) {
            let mut piece = fill.staging((range.end - range.start) as usize, staging);
            reader.read(source, range.clone(), &mut piece)?;
            fill.write(range.start, piece)?;
        }
    }
    Ok(())
}

//! One thread, tensor after tensor.

use std::ops::Range;

use checkpoint::Access;

use super::ahead::Ahead;
use super::{Piece, PieceReader, Source, in_place};
use crate::Error;
use crate::place::{Fill, Staging};

pub(super) fn carry(
    sources: &[Source],
    fills: &mut [&mut dyn Fill],
    staging: Staging,
) -> Result<(), Error> {
    let mut reader = PieceReader::new(Access::Buffered);
    let panel_bytes = reader.reader.panel_bytes();
    let ahead = Ahead::of(fills);
    if let Some(mut jobs) = in_place::jobs(sources, fills, panel_bytes, |_| in_place::PIECE_BYTES) {
        return ahead.during(|| jobs.try_for_each(|job| job.read(&mut reader)));
    }
    for (source, fill) in sources.iter().zip(fills) {
        for ranges in source.read_together(staging) {
            let piece = |range: Range<u64>| Piece {
                memory: fill.staging((range.end - range.start) as usize, staging),
                range,
            };
            let mut pieces: Vec<Piece> = ranges.into_iter().map(piece).collect();
            reader.read_pieces(source, &mut pieces)?;
            for Piece { range, memory } in pieces {
                fill.write(range.start, memory)?;
            }
        }
    }
    Ok(())
}

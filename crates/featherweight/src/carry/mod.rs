//! Who moves the bytes from the file to the tensors' memory.
//!
//! ```text
//!  memory of the host's   file ──read──────────────▶ tensor          no buffer between, but for casts and other layouts
//!  a device's             file ──read──▶ piece ────▶ tensor at its offset     all pieces together: the staging memory
//! ```

mod ahead;
mod in_place;
mod stream;
mod threads;
#[cfg(target_os = "linux")]
mod uring;
#[cfg(not(target_os = "linux"))]
#[path = "uring_elsewhere.rs"]
mod uring;

use std::ops::Range;

use burn::tensor::{Bytes, TensorData};
pub use checkpoint::Access;
use checkpoint::{Mapped, Reader, TensorRange, beside};

use crate::change::Cast;
use crate::place::{Fill, Staging, heap};
use crate::{Error, Observe};

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// One thread, tensor after tensor, through the page cache.
    Stream,
    /// Several threads at once.
    Threads {
        /// How many.
        threads: usize,
        /// Through the page cache, or past it.
        access: Access,
    },
    /// One thread past the page cache, with reads in flight through io_uring (Linux).
    Uring {
        /// How many reads are in flight.
        depth: usize,
    },
}

impl Carrier {
    /// More than this many threads, or reads in flight, help nobody.
    const MOST: usize = 128;
}

/// What a tensor is filled with: a tensor of a file, cast on the way.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it lies, and with which strides it is read.
    pub tensor: TensorRange,
    /// What becomes of its elements.
    pub cast: Cast,
}

impl Source {
    /// As it is stored.
    pub fn as_stored(tensor: TensorRange) -> Source {
        let cast = Cast::new(tensor.dtype, crate::change::burn_dtype(tensor.dtype));
        Source {
            cast: cast.expect("nothing is changed"),
            tensor,
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        let elements: u64 = self.tensor.shape.iter().map(|&size| size as u64).product();
        elements * self.cast.bytes_into() as u64
    }

    /// Where bytes in memory come from, in those that the tensor would have in memory as it is stored.
    fn stored(&self, range: &Range<u64>) -> Range<u64> {
        let (from, into) = (self.cast.bytes_from() as u64, self.cast.bytes_into() as u64);
        range.start / into * from..range.end / into * from
    }

    /// The largest length of a piece in memory that is read well, where a piece has at most `most` bytes there and in the file: as
    /// many elements are on their way whatever they become.
    pub(crate) fn piece_bytes(&self, most: usize) -> usize {
        let (from, into) = (self.cast.bytes_from(), self.cast.bytes_into());
        // Elements of both lengths, and the four bytes that pieces begin at.
        let step = from.max(into).max(4) * 8;
        let elements = most / from.max(into);
        let stored = self.tensor.piece_bytes((elements * from).max(step));
        let piece = stored / from * into;
        match piece / step * step {
            0 => step,
            piece => piece,
        }
    }

    /// Its pieces on the way to a device, in groups that are read together: see [`PieceReader::read_pieces`].
    pub(crate) fn read_together(
        &self,
        staging: Staging,
    ) -> impl Iterator<Item = Vec<Range<u64>>> + use<> {
        let together = match self.tensor.is_contiguous() || !self.cast.is_none() {
            true => 1,
            // Others are on their way meanwhile.
            false => Staging::PIECES / 2,
        };
        let mut pieces = self.pieces(staging.piece_bytes());
        std::iter::from_fn(move || {
            let some: Vec<_> = pieces.by_ref().take(together).collect();
            (!some.is_empty()).then_some(some)
        })
    }

    /// Its pieces: ranges of bytes in memory.
    pub(crate) fn pieces(&self, most: usize) -> impl Iterator<Item = Range<u64>> + use<> {
        let (bytes, step) = (self.bytes(), self.piece_bytes(most) as u64);
        let starts = (0..bytes).step_by(step as usize);
        starts.map(move |start| start..bytes.min(start + step))
    }
}

/// A part of a tensor on its way to a device.
pub(crate) struct Piece {
    /// Of the tensor's bytes in memory.
    range: Range<u64>,
    memory: Bytes,
}

/// Reads pieces, and casts them. One for each thread.
pub(crate) struct PieceReader {
    reader: Reader,
    stored: Vec<u8>,
}

/// What a cast has between the file and a tensor.
const SCRATCH_BYTES: usize = 1 << 20;

impl PieceReader {
    pub fn new(access: Access) -> PieceReader {
        PieceReader::with_buffer(access, 4 << 20)
    }

    /// With a buffer of this length, where it reads past the page cache.
    pub fn with_buffer(access: Access, bytes: usize) -> PieceReader {
        PieceReader {
            reader: Reader::with_buffer(access, bytes),
            stored: Vec::new(),
        }
    }

    /// Reads pieces of a source that follow each other. Where it is transposed, a piece has a part of each row of the file: of all
    /// pieces together these are longer, and are read at once.
    pub fn read_pieces(&mut self, source: &Source, pieces: &mut [Piece]) -> Result<(), Error> {
        let row_bytes = source.tensor.row_bytes().max(1);
        let are_rows = |piece: &Piece| {
            let (start, end) = (piece.range.start, piece.range.end);
            start.is_multiple_of(row_bytes) && end.is_multiple_of(row_bytes)
        };
        if pieces.len() < 2 || !source.cast.is_none() || !pieces.iter().all(are_rows) {
            return pieces
                .iter_mut()
                .try_for_each(|piece| self.read(source, piece.range.clone(), &mut piece.memory));
        }
        let rows = pieces.iter_mut().map(|Piece { range, memory }| {
            let (start, end) = (range.start / row_bytes, range.end / row_bytes);
            let rows = source.tensor.clone().narrowed(start as usize..end as usize);
            (rows, (range.clone(), &mut memory[..]))
        });
        let (panels, rest) = beside(rows, self.reader.panel_bytes());
        for rows in panels {
            for panel in rows.panels(|(_, memory)| memory) {
                self.reader.read_panel(panel)?;
            }
        }
        for (_, (range, memory)) in rest {
            self.read(source, range, memory)?;
        }
        Ok(())
    }

    /// Reads these bytes of what `source` is in memory.
    pub fn read(&mut self, source: &Source, range: Range<u64>, to: &mut [u8]) -> Result<(), Error> {
        let stored = source.stored(&range);
        if source.cast.is_none() {
            self.reader.read(&source.tensor, stored.start, to)?;
            return Ok(());
        }
        let (from, into) = (source.cast.bytes_from(), source.cast.bytes_into());
        if from < into {
            // What becomes longer is read to the end of its own room, all at once, and grows from the front.
            let at = to.len() - (stored.end - stored.start) as usize;
            self.reader
                .read(&source.tensor, stored.start, &mut to[at..])?;
            return grow(source, to, at);
        }
        let step = source.tensor.piece_bytes(SCRATCH_BYTES).max(1);
        let step = (step / from * from).max(from);
        let mut to = to;
        for start in (stored.start..stored.end).step_by(step) {
            let length = (stored.end - start).min(step as u64) as usize;
            self.stored.resize(length, 0);
            self.reader.read(&source.tensor, start, &mut self.stored)?;
            let (here, behind) = to.split_at_mut(length / from * into);
            cast(source, &self.stored, here)?;
            to = behind;
        }
        Ok(())
    }
}

/// Elements that are taken out before they are written again, longer.
const GROWN_AT_ONCE: usize = 256;

/// Casts what lies from `at` to the end, into all of `room`: the next element to be read is never behind the last one written,
/// for all of them have room.
fn grow(source: &Source, room: &mut [u8], at: usize) -> Result<(), Error> {
    let (from, into) = (source.cast.bytes_from(), source.cast.bytes_into());
    let elements = room.len() / into;
    let mut taken = [0; GROWN_AT_ONCE * 8];
    for first in (0..elements).step_by(GROWN_AT_ONCE) {
        let count = GROWN_AT_ONCE.min(elements - first);
        let taken = &mut taken[..count * from];
        taken.copy_from_slice(&room[at + first * from..][..count * from]);
        cast(source, taken, &mut room[first * into..][..count * into])?;
    }
    Ok(())
}

fn cast(source: &Source, stored: &[u8], to: &mut [u8]) -> Result<(), Error> {
    let cast = source.cast.convert(stored, to);
    cast.map_err(|unfit| Error::Value {
        file: source.tensor.file.to_path_buf(),
        tensor: source.tensor.name.clone(),
        value: unfit.value,
        into: source.cast.dtype().name().to_owned(),
        advice: match source.tensor.dtype.is_float() {
            true => "load it as it is stored, or cast it to a larger dtype",
            false => {
                "it is what the device's integers or booleans are: change the module, or the file"
            }
        },
    })
}

/// Reads a tensor into host memory that flex adopts as it is: flat data, as it is stored.
///
/// # Errors
///
/// If the file cannot be read.
pub fn read(tensor: &TensorRange) -> Result<TensorData, Error> {
    let (mut bytes, elements) = room_for(tensor);
    Reader::new(Access::Buffered).read(tensor, 0, &mut bytes)?;
    let dtype = crate::change::burn_dtype(tensor.dtype);
    Ok(TensorData::from_bytes(bytes, [elements], dtype))
}

/// Copies a tensor out of a map, as [`read`] reads it.
///
/// # Errors
///
/// If the map is of another checkpoint.
pub fn copy(mapped: &Mapped, tensor: &TensorRange) -> Result<TensorData, Error> {
    let (mut bytes, elements) = room_for(tensor);
    let rows = tensor.shape.first().copied().unwrap_or(1);
    mapped.copy_rows(tensor, 0..rows, &mut bytes);
    let dtype = crate::change::burn_dtype(tensor.dtype);
    Ok(TensorData::from_bytes(bytes, [elements], dtype))
}

fn room_for(tensor: &TensorRange) -> (Bytes, usize) {
    let elements = tensor.shape.iter().product::<usize>();
    (heap(elements * tensor.dtype.bytes() as usize), elements)
}

/// Fills every tensor with its source.
///
/// # Errors
///
/// If a file cannot be read or a value not cast, or the device refuses. Nothing is in flight any more then.
///
/// # Panics
///
/// If there are not as many fills as sources.
pub fn carry(
    sources: &[Source],
    fills: &mut [&mut dyn Fill],
    carrier: Carrier,
    staging: Staging,
    observer: &dyn Observe,
) -> Result<(), Error> {
    assert_eq!(sources.len(), fills.len());
    observer.enter(crate::Phase::Read);
    match carrier {
        Carrier::Stream => stream::carry(sources, fills, staging),
        Carrier::Threads { threads, access } => {
            // More threads than pieces have nothing to do.
            let piece_bytes = staging.piece_bytes() as u64;
            let pieces = sources
                .iter()
                .map(|source| source.bytes() / piece_bytes + 1);
            let most = pieces.sum::<u64>().min(Carrier::MOST as u64) as usize;
            threads::carry(
                sources,
                fills,
                threads.clamp(1, most.max(1)),
                access,
                staging,
            )
        }
        Carrier::Uring { depth } => {
            uring::carry(sources, fills, depth.clamp(1, Carrier::MOST), staging)
        }
    }
}

#[cfg(test)]
mod tests;

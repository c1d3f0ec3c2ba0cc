//! What is read at once into tensors whose memory is the host's.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use checkpoint::{Panel, TensorRange, beside};

use super::{PieceReader, Source};
use crate::Error;
use crate::place::Fill;

/// The most of it that one read fetches straight into a tensor.
pub(super) const PIECE_BYTES: usize = 4 << 20;
/// The same of what is gathered: a part of a transposed matrix has a part of each row of the file, and to read these one by one, or
/// with what is between them, takes longer than a thread that is idle at the end.
const GATHERED_PIECE_BYTES: usize = 256 << 20;

/// Memory that one reader fills, and nobody else meanwhile.
pub(super) enum Job<'a> {
    /// A part of a tensor that lies together in memory.
    Piece {
        source: &'a Source,
        /// Of its bytes in memory.
        range: Range<u64>,
        memory: &'a mut [u8],
    },
    /// Parts of tensors that lie together in the file, and are not cast.
    Panel(Panel<'a>),
}

impl Job<'_> {
    pub fn read(self, reader: &mut PieceReader) -> Result<(), Error> {
        match self {
            Job::Piece {
                source,
                range,
                memory,
            } => reader.read(source, range, memory),
            Job::Panel(panel) => Ok(reader.reader.read_panel(panel)?),
        }
    }

    /// The file that it lies in.
    pub fn file(&self) -> &Arc<Path> {
        match self {
            Job::Piece { source, .. } => &source.tensor.file,
            Job::Panel(panel) => panel.file(),
        }
    }

    /// Where it lies in the file; `None` where it is not together there.
    pub fn in_file(&self) -> Option<Range<u64>> {
        match self {
            Job::Piece { source, range, .. } => source.tensor.in_file(source.stored(range)),
            Job::Panel(panel) => Some(panel.span()),
        }
    }

    /// Puts what was read of the file to its place.
    pub fn place(self, read: &[u8]) -> Result<(), Error> {
        match self {
            Job::Piece { source, memory, .. } => super::cast(source, read, memory),
            Job::Panel(panel) => {
                panel.place(read);
                Ok(())
            }
        }
    }
}

/// Everything that is to be read, in the order of the sources. `None` if not every tensor has memory on the host.
pub(super) fn jobs<'a>(
    sources: &'a [Source],
    fills: &'a mut [&mut dyn Fill],
    panel_bytes: usize,
    piece_bytes: impl Fn(&Source) -> usize,
) -> Option<impl Iterator<Item = Job<'a>> + Send> {
    let memories = fills.iter_mut().map(|fill| fill.memory());
    let memories = memories.collect::<Option<Vec<_>>>()?.into_iter();
    let (mut as_stored, mut jobs) = (Vec::new(), Vec::<(usize, Jobs<'a>)>::new());
    let mut in_pieces = |at: usize, memory: &'a mut [u8]| {
        let source = &sources[at];
        let most = match source.tensor.is_contiguous() {
            true => piece_bytes(source),
            false => GATHERED_PIECE_BYTES,
        };
        jobs.push((at, Box::new(pieces(source, memory, most))));
    };
    for (at, (source, memory)) in sources.iter().zip(memories).enumerate() {
        match source.cast.is_none() {
            true => as_stored.push((source.tensor.clone(), (at, memory))),
            false => in_pieces(at, memory),
        }
    }
    let (panels, rest): (_, Vec<(TensorRange, _)>) = beside(as_stored, panel_bytes);
    for (_, (at, memory)) in rest {
        in_pieces(at, memory);
    }
    for tensors in panels {
        let at = tensors.first().0;
        let panels = tensors.panels(|(_, memory)| memory);
        jobs.push((at, Box::new(panels.map(Job::Panel))));
    }
    jobs.sort_by_key(|&(at, _)| at);
    Some(jobs.into_iter().flat_map(|(_, jobs)| jobs))
}

type Jobs<'a> = Box<dyn Iterator<Item = Job<'a>> + Send + 'a>;

fn pieces<'a>(
    source: &'a Source,
    memory: &'a mut [u8],
    most: usize,
) -> impl Iterator<Item = Job<'a>> + Send {
    let mut rest = memory;
    source.pieces(most).map(move |range| {
        let length = (range.end - range.start) as usize;
        let (memory, behind) = std::mem::take(&mut rest).split_at_mut(length);
        rest = behind;
        Job::Piece {
            source,
            range,
            memory,
        }
    })
}

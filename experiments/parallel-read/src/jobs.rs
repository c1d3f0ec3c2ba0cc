//! The load cut into pieces, each read by itself.

use std::ops::Range;

use checkpoint::TensorRange;

/// A parameter's tensor in the checkpoint, and its bytes of it.
pub type Source<'a> = (&'a TensorRange, Range<u64>);

/// A buffer for direct I/O: what one read in flight takes.
pub const ALIGNED_BYTES: u64 = 4 << 20;

/// A piece of a parameter.
pub struct Job<'a> {
    pub tensor: &'a TensorRange,
    /// Of the tensor's bytes.
    pub range: Range<u64>,
    /// Which of the parameters being filled it is of.
    pub filling: usize,
    /// Where in it the piece goes, in bytes.
    pub place: u64,
}

/// All pieces, of at most `piece_bytes` ([`TensorRange::piece_bytes`]), in the order of the sources.
pub fn cut<'a>(sources: &'a [Source<'a>], piece_bytes: usize) -> impl Iterator<Item = Job<'a>> {
    let each = sources.iter().enumerate();
    each.flat_map(move |(filling, (tensor, range))| {
        let piece_bytes = tensor.piece_bytes(piece_bytes);
        let starts = range.clone().step_by(piece_bytes);
        starts.map(move |start| Job {
            tensor,
            range: start..range.end.min(start + piece_bytes as u64),
            filling,
            place: start - range.start,
        })
    })
}

//! The load cut into pieces, each read by itself.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Where a parameter's bytes lie.
pub type Source = (Arc<Path>, Range<u64>);

/// A buffer for direct I/O: what one read in flight takes.
pub const ALIGNED_BYTES: u64 = 4 << 20;

/// A piece of a parameter.
pub struct Job {
    pub file: Arc<Path>,
    /// In the file.
    pub range: Range<u64>,
    /// Which of the parameters being filled it is of.
    pub filling: usize,
    /// Where in it the piece goes, in bytes.
    pub place: u64,
}

/// All pieces, of at most `piece_bytes`, in the order of the file.
pub fn cut(sources: &[Source], piece_bytes: usize) -> impl Iterator<Item = Job> {
    let each = sources.iter().enumerate();
    each.flat_map(move |(filling, (file, range))| {
        let starts = range.clone().step_by(piece_bytes);
        starts.map(move |start| Job {
            file: file.clone(),
            range: start..range.end.min(start + piece_bytes as u64),
            filling,
            place: start - range.start,
        })
    })
}

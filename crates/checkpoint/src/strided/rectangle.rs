//! Rectangles of a matrix: which reads they take, and where in memory what was read belongs.

use std::io::Result;
use std::ops::Range;

use super::source::Elements;
use super::transpose::{Store, transpose};
use super::window::Window;
use crate::TensorRange;

/// The most that is collected before it is put in its place. It should stay in a core's own cache meanwhile: from 256 KiB to
/// 4 MiB, the time for a whole matrix is the same.
pub(super) const SCRATCH_BYTES: usize = 1 << 20;

/// One of the two dimensions of a rectangle: its length, and elements from one to the next in the file and in memory.
#[derive(Clone, Copy)]
struct Dimension {
    length: usize,
    in_file: usize,
    in_memory: usize,
}

impl Dimension {
    /// Elements of the file from the first to the last.
    fn span(self) -> usize {
        (self.length - 1) * self.in_file + 1
    }

    /// How many lie within `room` elements of the file; at least one.
    fn fitting(self, room: usize) -> usize {
        match room.saturating_sub(1).checked_div(self.in_file) {
            Some(others) => self.length.min(1 + others),
            None => self.length,
        }
    }
}

/// Rows and columns of a tensor. The segments lie along `inner`.
#[derive(Clone, Copy)]
pub(super) struct Rectangle {
    /// Where it begins in the file.
    first: usize,
    inner: Dimension,
    outer: Dimension,
}

impl Rectangle {
    pub(super) fn new(
        tensor: &TensorRange,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Rectangle {
        let (row_stride, column_stride) = match tensor.strides[..] {
            // Dimensions before these have one element.
            [.., row, column] => (row, column),
            [column] => (0, column),
            [] => (0, 0),
        };
        let vertical = Dimension {
            length: rows.len(),
            in_file: row_stride,
            in_memory: columns.len(),
        };
        let horizontal = Dimension {
            length: columns.len(),
            in_file: column_stride,
            in_memory: 1,
        };
        let is_transposed = row_stride.max(1) < column_stride;
        let (inner, outer) = match is_transposed {
            true => (vertical, horizontal),
            false => (horizontal, vertical),
        };
        Rectangle {
            first: rows.start * row_stride + columns.start * column_stride,
            inner,
            outer,
        }
    }

    /// Reads all of it into `memory`.
    pub(super) fn read<const ELEMENT: usize, const LINE: usize>(
        self,
        file: &mut Elements<'_>,
        memory: &mut [[u8; ELEMENT]],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let Rectangle { inner, outer, .. } = self;
        let are_rows = inner.in_file == 1 && inner.in_memory == 1;
        if are_rows && (outer.length == 1 || outer.in_file > file.gap) {
            for row in 0..outer.length {
                let to = &mut memory[row * outer.in_memory..][..inner.length];
                file.read(self.first + row * outer.in_file, to)?;
            }
            return Ok(());
        }
        // A line of memory takes one element of each of `LINE` columns. Parts of columns are so short that as many are
        // collected at once, but not shorter than what is read in the time that it takes to begin another read.
        let most = SCRATCH_BYTES / ELEMENT;
        let fitting = match inner.in_file > 1 + file.gap {
            true => 1,
            false => inner.fitting(file.gap.clamp(most / LINE, most)),
        };
        let step = inner.length.div_ceil(inner.length.div_ceil(fitting));
        for start in (0..inner.length).step_by(step) {
            let part = Rectangle {
                first: self.first + start * inner.in_file,
                inner: Dimension {
                    length: step.min(inner.length - start),
                    ..inner
                },
                outer,
            };
            let memory = &mut memory[start * inner.in_memory..];
            part.collect::<ELEMENT, LINE>(file, memory, scratch)?;
        }
        Ok(())
    }

    /// Reads segments into scratch memory, as many as it holds, and puts them in their place; until all are there.
    fn collect<const ELEMENT: usize, const LINE: usize>(
        self,
        file: &mut Elements<'_>,
        memory: &mut [[u8; ELEMENT]],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let Rectangle { inner, outer, .. } = self;
        let segment = inner.span();
        let skips_gaps = outer.in_file > segment + file.gap;
        // From one segment to the next in scratch memory.
        let pitch = if skips_gaps { segment } else { outer.in_file };
        let collected = Dimension {
            in_file: pitch,
            ..outer
        };
        let step = match collected.fitting(SCRATCH_BYTES / ELEMENT + 1 - segment) {
            // Then what follows begins in memory at a cache line, if the first does.
            count if LINE < count && count < outer.length => count / LINE * LINE,
            count => count,
        };
        for start in (0..outer.length).step_by(step) {
            let first = self.first + start * outer.in_file;
            let outer = Dimension {
                length: step.min(outer.length - start),
                ..collected
            };
            let scratch = at_least(scratch, (outer.span() - 1 + segment) * ELEMENT);
            let (scratch, _) = scratch.as_chunks_mut::<ELEMENT>();
            if skips_gaps {
                for (count, segment) in scratch.chunks_exact_mut(segment).enumerate() {
                    file.read(first + count * self.outer.in_file, segment)?;
                }
            } else {
                file.read(first, scratch)?;
            }
            place::<ELEMENT, LINE>(
                scratch,
                inner,
                outer,
                &mut memory[start * outer.in_memory..],
            );
        }
        Ok(())
    }
}

/// The first so many bytes of `scratch`, which grows to them.
pub(crate) fn at_least(scratch: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    if scratch.len() < bytes {
        scratch.reserve_exact(bytes - scratch.len());
        scratch.resize(bytes, 0);
    }
    &mut scratch[..bytes]
}

/// Puts what was collected in its place.
fn place<const ELEMENT: usize, const LINE: usize>(
    from: &[[u8; ELEMENT]],
    inner: Dimension,
    outer: Dimension,
    memory: &mut [[u8; ELEMENT]],
) {
    if inner.in_file == 1 && outer.in_memory == 1 {
        let size = (outer.length, inner.length);
        let (width, pitch) = (outer.length * ELEMENT, inner.in_memory * ELEMENT);
        let mut to = Window::within(memory.as_flattened_mut(), inner.length, width, pitch);
        transpose::<ELEMENT, LINE>(from, outer.in_file, size, &mut to, Store::Cached);
        return;
    }
    // Memory is written in its own order: one of the two dimensions are its rows.
    let (rows, columns) = match inner.in_memory {
        1 => (outer, inner),
        _ => (inner, outer),
    };
    for row in 0..rows.length {
        let to = &mut memory[row * rows.in_memory..][..columns.length];
        let from = &from[row * rows.in_file..];
        if columns.in_file == 1 {
            to.copy_from_slice(&from[..columns.length]);
            continue;
        }
        for (column, to) in to.iter_mut().enumerate() {
            *to = from[column * columns.in_file];
        }
    }
}

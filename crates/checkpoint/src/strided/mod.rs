//! Reading what does not lie in a row: transposed matrices, columns of wider ones.
//!
//! ```text
//!  file    ├─segment─┤ gap ├─segment─┤ gap …      a segment: the elements of one row (or one column) that are wanted
//!  memory  [r0c0 r0c1 …]                          always row-major
//! ```
//!
//! Short gaps are read with the segments and thrown away, long ones are skipped. Parts of rows are read to their place;
//! parts of columns are collected in scratch memory and transposed from there. A whole transposed matrix has no gaps: it is
//! read in long runs, every byte once.

mod source;
mod transpose;

use std::io::Result;
use std::ops::Range;

use self::source::ReadAt;
pub(crate) use self::source::Source;
use self::transpose::transpose;
use crate::TensorRange;

/// The most that is collected before it is put in its place. It should stay in a core's own cache meanwhile; from 256 KiB to
/// 4 MiB the time for a whole matrix is the same.
const SCRATCH_BYTES: usize = 1 << 20;

/// Reads the bytes from `start` on of a matrix as it would lie row-major without gaps. Both ends lie between elements.
pub(crate) fn gather(
    tensor: &TensorRange,
    start: u64,
    buffer: &mut [u8],
    scratch: &mut Vec<u8>,
    source: Source<'_>,
) -> Result<()> {
    match tensor.dtype.bytes() {
        1 => gather_elements::<1, 64>(tensor, start, buffer, scratch, source),
        2 => gather_elements::<2, 32>(tensor, start, buffer, scratch, source),
        4 => gather_elements::<4, 16>(tensor, start, buffer, scratch, source),
        8 => gather_elements::<8, 8>(tensor, start, buffer, scratch, source),
        bytes => unreachable!("{} has elements of {bytes} bytes", tensor.dtype),
    }
}

/// The same for elements of `ELEMENT` bytes, of which `LINE` fill a cache line.
fn gather_elements<const ELEMENT: usize, const LINE: usize>(
    tensor: &TensorRange,
    start: u64,
    buffer: &mut [u8],
    scratch: &mut Vec<u8>,
    source: Source<'_>,
) -> Result<()> {
    let mut elements = Elements {
        offset: tensor.offset,
        gap: source.gap_bytes / ELEMENT,
        read: source.read,
    };
    let columns = tensor.shape.last().copied().unwrap_or(1);
    let mut at = start as usize / ELEMENT;
    let (mut rest, _) = buffer.as_chunks_mut::<ELEMENT>();
    while !rest.is_empty() {
        // The rest of a row that is begun, whole rows, or a part of the last one.
        let (row, column) = (at / columns, at % columns);
        let whole = rest.len() / columns;
        let (rows, columns) = match (column, whole) {
            (0, 1..) => (row..row + whole, 0..columns),
            _ => (row..row + 1, column..columns.min(column + rest.len())),
        };
        let count = rows.len() * columns.len();
        let (here, behind) = rest.split_at_mut(count);
        Rectangle::new(tensor, rows, columns).read::<ELEMENT, LINE>(
            &mut elements,
            here,
            scratch,
        )?;
        rest = behind;
        at += count;
    }
    Ok(())
}

/// A [`Source`] in elements, counted from the tensor's first.
struct Elements<'a> {
    offset: u64,
    gap: usize,
    read: &'a mut ReadAt<'a>,
}

impl Elements<'_> {
    fn read<const ELEMENT: usize>(&mut self, at: usize, to: &mut [[u8; ELEMENT]]) -> Result<()> {
        let offset = self.offset + (at * ELEMENT) as u64;
        (self.read)(offset, to.as_flattened_mut())
    }
}

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
struct Rectangle {
    /// Where it begins in the file.
    first: usize,
    inner: Dimension,
    outer: Dimension,
}

impl Rectangle {
    fn new(tensor: &TensorRange, rows: Range<usize>, columns: Range<usize>) -> Rectangle {
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

    fn read<const ELEMENT: usize, const LINE: usize>(
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
        // Of long columns, only parts are read at once: the memory's cache lines are to be filled, which takes a part of
        // each of `LINE` of them. But what can be read in the time that it takes to begin a read is not divided.
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
fn at_least(scratch: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
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
        transpose::<ELEMENT, LINE>(from, outer.in_file, size, memory, inner.in_memory);
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Dtype;

    /// Walks the matrix element by element.
    fn expected(tensor: &TensorRange, bytes: usize, file: &[u8], part: Range<usize>) -> Vec<u8> {
        let mut found = Vec::with_capacity(part.len() * bytes);
        for at in part {
            let (row, column) = (at / tensor.shape[1], at % tensor.shape[1]);
            let element = row * tensor.strides[0] + column * tensor.strides[1];
            let place = tensor.offset as usize + element * bytes;
            found.extend_from_slice(&file[place..place + bytes]);
        }
        found
    }

    /// Reads some part of it, which may begin and end within rows.
    fn check<const ELEMENT: usize, const LINE: usize>(
        random: &mut fastrand::Rng,
        shape: [usize; 2],
        strides: [usize; 2],
    ) {
        let last = (shape[0] - 1) * strides[0] + (shape[1] - 1) * strides[1];
        let content = |at| (at * 31 % 251) as u8;
        let file: Vec<u8> = (0..(7 + last + 1) * ELEMENT).map(content).collect();
        let mut tensor = TensorRange {
            name: "a".to_owned(),
            dtype: match ELEMENT {
                1 => Dtype::I8,
                2 => Dtype::F16,
                _ => Dtype::F32,
            },
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            file: Path::new("none").into(),
            offset: 7 * ELEMENT as u64,
        };
        if random.bool() {
            tensor = tensor.transposed();
        }
        let all = shape[0] * shape[1];
        let part = match random.bool() {
            true => 0..all,
            false => {
                let start = random.usize(0..all);
                start..random.usize(start..=all)
            }
        };
        let mut found = vec![0; part.len() * ELEMENT];
        let mut scratch = Vec::new();
        let mut read = |offset: u64, to: &mut [u8]| {
            assert!(offset >= tensor.offset);
            // The file ends where the tensor does: what lies behind is not to be read.
            to.copy_from_slice(&file[offset as usize..][..to.len()]);
            Ok(())
        };
        let source = Source {
            read: &mut read,
            gap_bytes: random.choice([0, 50, 4096, 1 << 18]).unwrap(),
        };
        let start = (part.start * ELEMENT) as u64;
        let gathered = match ELEMENT {
            // No dtype has such elements yet.
            8 => gather_elements::<8, 8>(&tensor, start, &mut found, &mut scratch, source),
            _ => gather(&tensor, start, &mut found, &mut scratch, source),
        };
        gathered.unwrap();
        assert!(scratch.capacity() <= SCRATCH_BYTES);
        assert!(
            found == expected(&tensor, ELEMENT, &file, part.clone()),
            "{part:?} of {tensor:?}"
        );
    }

    fn check_sizes<const ELEMENT: usize, const LINE: usize>(random: &mut fastrand::Rng) {
        let edges = [1, 2, LINE - 1, LINE, LINE + 1, 3 * LINE];
        for case in 0..500 {
            let mut size = || match case % 2 {
                0 => random.usize(1..40),
                _ => random.choice(edges).unwrap(),
            };
            let shape = [size(), size()];
            let wide = if case % 50 == 0 { 40_000 } else { 50 };
            let strides = match random.bool() {
                true => [shape[1] + random.usize(0..50), 1],
                false => [random.usize(0..wide), random.usize(0..50)],
            };
            check::<ELEMENT, LINE>(random, shape, strides);
        }
        // Segments that are longer than what is collected of one, and more of them than are collected at once.
        for case in 0..20 {
            let gap = random.usize(0..3) * 1500;
            let shape = match case % 2 {
                0 => [random.usize(1..2 * LINE), random.usize(10_000..40_000)],
                _ => [random.usize(3000..6000), random.usize(1..100)],
            };
            check::<ELEMENT, LINE>(random, shape, [shape[1] + gap, 1]);
        }
    }

    #[test]
    fn any_part_of_any_strided_matrix_is_what_walking_it_element_by_element_gives() {
        let mut random = fastrand::Rng::with_seed(20261124);
        check_sizes::<1, 64>(&mut random);
        check_sizes::<2, 32>(&mut random);
        check_sizes::<4, 16>(&mut random);
        check_sizes::<8, 8>(&mut random);
    }
}

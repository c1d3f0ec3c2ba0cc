//! Reading what does not lie in a row: transposed matrices, columns of wider ones.
//!
//! ```text
//!  file    ├─segment─┤ gap ├─segment─┤ gap …      a segment: the elements of one row (or one column) that are wanted
//!  memory  [r0c0 r0c1 …]                          always row-major
//! ```
//!
//! Segments that lie near each other are read at once, and what is between them thrown away; those far apart one by one.

use std::ops::Range;

use crate::TensorRange;

/// The most that is read at once.
const SCRATCH_BYTES: usize = 1 << 20;
/// Segments are near each other where as much as this many times their length lies from one to the next.
const NEAR: usize = 4;

/// Reads bytes of a file from an offset on.
pub(crate) type ReadAt<'a> = dyn FnMut(u64, &mut [u8]) -> std::io::Result<()> + 'a;

/// Reads the bytes from `start` on of a matrix as it would lie row-major without gaps. Both ends lie between elements.
pub(crate) fn gather(
    tensor: &TensorRange,
    start: u64,
    buffer: &mut [u8],
    scratch: &mut Vec<u8>,
    read: &mut ReadAt<'_>,
) -> std::io::Result<()> {
    let element = tensor.dtype.bytes() as usize;
    let columns = tensor.shape.last().copied().unwrap_or(1);
    let (mut at, end) = (
        start as usize / element,
        (start as usize + buffer.len()) / element,
    );
    let mut rest = buffer;
    while at < end {
        // The rest of a row that is begun, whole rows, or a part of the last one.
        let (row, column) = (at / columns, at % columns);
        let whole = (end - at) / columns;
        let (rows, columns) = match (column, whole) {
            (0, 1..) => (row..row + whole, 0..columns),
            _ => (row..row + 1, column..columns.min(column + end - at)),
        };
        let elements = rows.len() * columns.len();
        let (here, behind) = rest.split_at_mut(elements * element);
        let rectangle = Rectangle::new(tensor, rows, columns);
        match element {
            1 => rectangle.read::<1>(here, scratch, read)?,
            2 => rectangle.read::<2>(here, scratch, read)?,
            4 => rectangle.read::<4>(here, scratch, read)?,
            _ => rectangle.read::<8>(here, scratch, read)?,
        }
        rest = behind;
        at += elements;
    }
    Ok(())
}

/// One of the two dimensions of a rectangle: its length, and elements from one to the next in the file and in memory.
#[derive(Clone, Copy)]
struct Dimension {
    length: usize,
    in_file: usize,
    in_memory: usize,
}

/// Rows and columns of a tensor. The segments lie along `inner`.
struct Rectangle {
    first_byte: u64,
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
        let first = rows.start * row_stride + columns.start * column_stride;
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
        let is_transposed = row_stride < column_stride && rows.len() > 1;
        let (inner, outer) = match is_transposed {
            true => (vertical, horizontal),
            false => (horizontal, vertical),
        };
        Rectangle {
            first_byte: tensor.offset + first as u64 * tensor.dtype.bytes(),
            inner,
            outer,
        }
    }

    fn read<const ELEMENT: usize>(
        &self,
        memory: &mut [u8],
        scratch: &mut Vec<u8>,
        read: &mut ReadAt<'_>,
    ) -> std::io::Result<()> {
        let Rectangle { inner, outer, .. } = *self;
        let (memory, _) = memory.as_chunks_mut::<ELEMENT>();
        let most = SCRATCH_BYTES / ELEMENT;
        let span = |count: usize, dimension: Dimension| (count - 1) * dimension.in_file + 1;
        let fitting = |dimension: Dimension, room: usize| match dimension.in_file {
            0 => dimension.length,
            stride => (1 + room.saturating_sub(1) / stride).min(dimension.length),
        };
        // A segment that is longer than the scratch memory is read in parts.
        let inner_step = fitting(inner, most);
        let segment = span(inner_step, inner);
        let outer_step = match outer.in_file <= NEAR * segment {
            true => fitting(outer, (most + 1).saturating_sub(segment)),
            false => 1,
        };
        for inner_start in (0..inner.length).step_by(inner_step) {
            let inner_count = inner_step.min(inner.length - inner_start);
            for outer_start in (0..outer.length).step_by(outer_step) {
                let outer_count = outer_step.min(outer.length - outer_start);
                let in_file = inner_start * inner.in_file + outer_start * outer.in_file;
                let elements = span(outer_count, outer) - 1 + span(inner_count, inner);
                scratch.resize(elements * ELEMENT, 0);
                read(self.first_byte + (in_file * ELEMENT) as u64, scratch)?;
                let (found, _) = scratch.as_chunks::<ELEMENT>();
                let place = inner_start * inner.in_memory + outer_start * outer.in_memory;
                // Memory is written in its own order: its rows' elements are one of the two steps.
                let (slow, fast) = match inner.in_memory {
                    1 => ((outer, outer_count), (inner, inner_count)),
                    _ => ((inner, inner_count), (outer, outer_count)),
                };
                for row in 0..slow.1 {
                    let to = &mut memory[place + row * slow.0.in_memory..][..fast.1];
                    let from = row * slow.0.in_file;
                    for (column, to) in to.iter_mut().enumerate() {
                        *to = found[from + column * fast.0.in_file];
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Dtype;

    /// Walks the matrix element by element.
    fn expected(tensor: &TensorRange, file: &[u8], part: Range<usize>) -> Vec<u8> {
        let bytes = tensor.dtype.bytes() as usize;
        let places = part.map(|at| {
            let (row, column) = (at / tensor.shape[1], at % tensor.shape[1]);
            let element = row * tensor.strides[0] + column * tensor.strides[1];
            tensor.offset as usize + element * bytes
        });
        places
            .flat_map(|place| file[place..place + bytes].to_vec())
            .collect()
    }

    #[test]
    fn any_part_of_any_strided_matrix_is_what_walking_it_element_by_element_gives() {
        let mut random = fastrand::Rng::with_seed(20261124);
        for case in 0..2000 {
            let shape = vec![random.usize(1..40), random.usize(1..40)];
            // Some with segments longer than what is read at once.
            let wide = if case % 100 == 0 { 40_000 } else { 50 };
            let strides = vec![random.usize(0..wide), random.usize(0..50)];
            let dtype = random.choice([Dtype::F32, Dtype::F16, Dtype::I8]).unwrap();
            let bytes = dtype.bytes() as usize;
            let elements = (shape[0] - 1) * strides[0] + (shape[1] - 1) * strides[1] + 1;
            let file: Vec<u8> = (0..(elements + 7) * bytes)
                .map(|at| (at * 31 % 251) as u8)
                .collect();
            let mut tensor = TensorRange {
                name: "a".to_owned(),
                dtype,
                shape,
                strides,
                file: Path::new("none").into(),
                offset: 7 * bytes as u64,
            };
            if random.bool() {
                tensor = tensor.transposed();
            }
            let all = tensor.shape[0] * tensor.shape[1];
            let start = random.usize(0..all);
            let end = random.usize(start..=all);
            let mut found = vec![0; (end - start) * bytes];
            let mut scratch = Vec::new();
            let mut read = |offset: u64, to: &mut [u8]| {
                assert!(to.len() <= SCRATCH_BYTES);
                to.copy_from_slice(&file[offset as usize..offset as usize + to.len()]);
                Ok(())
            };
            let from = (start * bytes) as u64;
            gather(&tensor, from, &mut found, &mut scratch, &mut read).unwrap();
            assert!(found == expected(&tensor, &file, start..end), "{tensor:?}");
        }
    }
}

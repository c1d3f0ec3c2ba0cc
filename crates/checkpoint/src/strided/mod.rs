//! Reading what does not lie in a row: transposed matrices, columns of wider ones.
//!
//! ```text
//!  file    ├─segment─┤ gap ├─segment─┤ gap …      a segment: the elements of one row (or one column) that are wanted
//!  memory  [r0c0 r0c1 …]                          always row-major
//! ```
//!
//! Short gaps are read with the segments and thrown away, long ones are skipped. Parts of rows are read to their place;
//! parts of columns are collected in scratch memory and transposed from there. A whole transposed matrix has no gaps: it is
//! read in long runs, every byte once. Where all of a matrix is wanted in memory that can be written anywhere, [`Panel`]s do so from
//! several threads.

mod panel;
mod rectangle;
mod source;
mod transpose;
mod window;

use std::io::Result;

pub use self::panel::{Beside, Panel, beside};
use self::rectangle::Rectangle;
pub(crate) use self::rectangle::at_least;
pub(crate) use self::source::Source;
use crate::TensorRange;

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
    let mut elements = source.elements::<ELEMENT>(tensor.offset);
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

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::path::Path;

    use super::rectangle::SCRATCH_BYTES;
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

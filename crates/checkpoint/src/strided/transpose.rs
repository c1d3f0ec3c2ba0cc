//! Transposing in memory, block by block.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable;
#[cfg(target_arch = "x86_64")]
mod sse2;

use std::ops::Range;

#[cfg(not(target_arch = "x86_64"))]
use self::portable::{block, finish, store};
#[cfg(target_arch = "x86_64")]
use self::sse2::{block, finish, store};
use super::window::Window;

/// How memory is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    /// Into the caches: it is used next.
    Cached,
    /// Past them, where the processor can: nobody needs it soon, and a line that is written whole need not be fetched before.
    Past,
}

/// A block: as high and wide as a cache line is long.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Block<const ELEMENT: usize, const LINE: usize>([[[u8; ELEMENT]; LINE]; LINE]);

/// Rows as columns: `from` has `rows` rows of `columns` elements, a pitch apart. A cache line has `LINE` elements.
///
/// Rows often lie a multiple of 4 KiB apart, and a core's first cache holds only 8 or 12 lines with such addresses. Blocks
/// are therefore as high and wide as a line is long: each line of memory is written whole before it has to make room.
pub(super) fn transpose<const ELEMENT: usize, const LINE: usize>(
    from: &[[u8; ELEMENT]],
    pitch: usize,
    (rows, columns): (usize, usize),
    to: &mut Window<'_>,
    how: Store,
) {
    assert_eq!((to.rows(), to.width()), (columns, rows * ELEMENT));
    #[cfg(target_arch = "x86_64")]
    if ELEMENT == 4 && avx512::is_there() {
        let (whole_rows, whole_columns) = (rows / LINE * LINE, columns / LINE * LINE);
        avx512::blocks(from, pitch, (whole_rows, whole_columns), to, how);
        // What is left is a strip at the right, and one below.
        by_element(from, pitch, (whole_rows..rows, 0..whole_columns), to);
        by_element(from, pitch, (0..rows, whole_columns..columns), to);
        return;
    }
    let mut lines = Block([[[0; ELEMENT]; LINE]; LINE]);
    for column in (0..columns).step_by(LINE) {
        for row in (0..rows).step_by(LINE) {
            let (end_row, end_column) = (rows.min(row + LINE), columns.min(column + LINE));
            if (end_row - row, end_column - column) != (LINE, LINE) {
                by_element(from, pitch, (row..end_row, column..end_column), to);
                continue;
            }
            block(&from[row * pitch + column..], pitch, &mut lines);
            for (line, column) in lines.0.iter().zip(column..) {
                let to = &mut to.row(column)[row * ELEMENT..][..LINE * ELEMENT];
                store(line.as_flattened(), to, how);
            }
        }
    }
    finish(how);
}

fn by_element<const ELEMENT: usize>(
    from: &[[u8; ELEMENT]],
    pitch: usize,
    (rows, columns): (Range<usize>, Range<usize>),
    to: &mut Window<'_>,
) {
    for column in columns {
        let (to, _) = to.row(column).as_chunks_mut::<ELEMENT>();
        for (row, to) in rows.clone().zip(&mut to[rows.clone()]) {
            *to = from[row * pitch + column];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<const ELEMENT: usize, const LINE: usize>(how: Store) {
        let mut random = fastrand::Rng::with_seed(20261129);
        let sizes = [1, 3, LINE - 1, LINE, LINE + 1, 3 * LINE - 2, 4 * LINE];
        let sizes = sizes
            .iter()
            .flat_map(|&rows| sizes.iter().map(move |&columns| (rows, columns)));
        for (rows, columns) in sizes {
            let from_pitch = columns + random.usize(0..3);
            // Lines are aligned, or not.
            let to_pitch = rows + random.choice([0, 1, 2, LINE - rows % LINE]).unwrap();
            let mut from = vec![[0; ELEMENT]; (rows - 1) * from_pitch + columns];
            random.fill(from.as_flattened_mut());
            let mut to = vec![[7; ELEMENT]; (columns - 1) * to_pitch + rows];
            let mut expected = to.clone();
            for row in 0..rows {
                for column in 0..columns {
                    expected[column * to_pitch + row] = from[row * from_pitch + column];
                }
            }
            let memory = to.as_flattened_mut();
            let mut window = Window::within(memory, columns, rows * ELEMENT, to_pitch * ELEMENT);
            transpose::<ELEMENT, LINE>(&from, from_pitch, (rows, columns), &mut window, how);
            assert!(to == expected, "{ELEMENT} bytes, {rows} x {columns}");
        }
        let mut from = vec![[0; ELEMENT]; LINE * (LINE + 1)];
        random.fill(from.as_flattened_mut());
        let mut lines = [Block([[[0; ELEMENT]; LINE]; LINE]); 2];
        block(&from, LINE + 1, &mut lines[0]);
        portable::block(&from, LINE + 1, &mut lines[1]);
        assert!(lines[0].0 == lines[1].0);
    }

    fn check_all<const ELEMENT: usize, const LINE: usize>() {
        check::<ELEMENT, LINE>(Store::Cached);
        check::<ELEMENT, LINE>(Store::Past);
    }

    #[test]
    fn every_element_is_in_its_place_and_nothing_between_rows_is_written() {
        check_all::<1, 64>();
        check_all::<2, 32>();
        check_all::<4, 16>();
        check_all::<8, 8>();
    }
}

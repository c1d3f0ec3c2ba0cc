//! Transposing in memory, block by block.

#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable;
#[cfg(target_arch = "x86_64")]
mod sse2;

#[cfg(not(target_arch = "x86_64"))]
use self::portable::block;
#[cfg(target_arch = "x86_64")]
use self::sse2::block;

/// Rows as columns: `from` has `rows` rows of `columns` elements. From one row to the next are `from_pitch` elements there,
/// and `to_pitch` in `to`. A cache line has `LINE` elements.
///
/// Rows often lie a multiple of 4 KiB apart, and a core's first cache holds only 8 or 12 lines with such addresses. Blocks
/// are therefore as high and wide as a line is long: each line of memory is written whole before it has to make room.
pub(super) fn transpose<const ELEMENT: usize, const LINE: usize>(
    from: &[[u8; ELEMENT]],
    from_pitch: usize,
    (rows, columns): (usize, usize),
    to: &mut [[u8; ELEMENT]],
    to_pitch: usize,
) {
    for column in (0..columns).step_by(LINE) {
        for row in (0..rows).step_by(LINE) {
            let from = &from[row * from_pitch + column..];
            let to = &mut to[column * to_pitch + row..];
            match (LINE.min(rows - row), LINE.min(columns - column)) {
                size if size == (LINE, LINE) => {
                    block::<ELEMENT, LINE>(from, from_pitch, to, to_pitch);
                }
                size => by_element(from, from_pitch, size, to, to_pitch),
            }
        }
    }
}

fn by_element<const ELEMENT: usize>(
    from: &[[u8; ELEMENT]],
    from_pitch: usize,
    (rows, columns): (usize, usize),
    to: &mut [[u8; ELEMENT]],
    to_pitch: usize,
) {
    for column in 0..columns {
        let to = &mut to[column * to_pitch..][..rows];
        for (row, to) in to.iter_mut().enumerate() {
            *to = from[row * from_pitch + column];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Transpose<const ELEMENT: usize> =
        dyn Fn(&[[u8; ELEMENT]], usize, (usize, usize), &mut [[u8; ELEMENT]], usize);

    fn check<const ELEMENT: usize>(sizes: &[usize], transpose: &Transpose<ELEMENT>) {
        let mut random = fastrand::Rng::with_seed(20261129);
        let sizes = sizes
            .iter()
            .flat_map(|&rows| sizes.iter().map(move |&columns| (rows, columns)));
        for (rows, columns) in sizes {
            let from_pitch = columns + random.usize(0..3);
            let to_pitch = rows + random.usize(0..3);
            let mut from = vec![[0; ELEMENT]; (rows - 1) * from_pitch + columns];
            random.fill(from.as_flattened_mut());
            let mut to = vec![[7; ELEMENT]; (columns - 1) * to_pitch + rows];
            let mut expected = to.clone();
            for row in 0..rows {
                for column in 0..columns {
                    expected[column * to_pitch + row] = from[row * from_pitch + column];
                }
            }
            transpose(&from, from_pitch, (rows, columns), &mut to, to_pitch);
            assert!(to == expected, "{ELEMENT} bytes, {rows} x {columns}");
        }
    }

    fn check_all<const ELEMENT: usize, const LINE: usize>() {
        let sizes = [1, 3, LINE - 1, LINE, LINE + 1, 3 * LINE - 2];
        check(&sizes, &transpose::<ELEMENT, LINE>);
        check(&[LINE], &|from, from_pitch, _, to, to_pitch| {
            portable::block::<ELEMENT, LINE>(from, from_pitch, to, to_pitch);
        });
    }

    #[test]
    fn every_element_is_in_its_place_and_nothing_between_rows_is_written() {
        check_all::<1, 64>();
        check_all::<2, 32>();
        check_all::<4, 16>();
        check_all::<8, 8>();
    }
}

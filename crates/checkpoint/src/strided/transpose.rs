//! Transposing in memory: the two loops, in an order that caches like.

/// The bytes of a cache line. A block is as many elements wide and high as fit in one.
pub(super) const LINE_BYTES: usize = 64;

/// Writes the columns of `from` as rows of `to`: `from` has `rows` rows of `columns` elements, and `from_pitch` elements
/// lie from one row to the next; a row of `to` begins `to_pitch` elements after the one before. `LINE` is how many
/// elements a cache line has.
///
/// Rows of both often lie a power of two apart, and then few of them fit in the nearest cache together. Every line is
/// therefore read at once and written at once, by way of a block on the stack. (Blocks of 8 × 8 f32 take a third longer.)
pub(super) fn transpose<const ELEMENT: usize, const LINE: usize>(
    from: &[[u8; ELEMENT]],
    from_pitch: usize,
    (rows, columns): (usize, usize),
    to: &mut [[u8; ELEMENT]],
    to_pitch: usize,
) {
    const { assert!(ELEMENT * LINE == LINE_BYTES) }
    for column in (0..columns).step_by(LINE) {
        for row in (0..rows).step_by(LINE) {
            let from = &from[row * from_pitch + column..];
            let to = &mut to[column * to_pitch + row..];
            let (rows, columns) = (LINE.min(rows - row), LINE.min(columns - column));
            if (rows, columns) == (LINE, LINE) {
                whole_block::<ELEMENT, LINE>(from, from_pitch, to, to_pitch);
            } else {
                for column in 0..columns {
                    let to = &mut to[column * to_pitch..][..rows];
                    for (row, to) in to.iter_mut().enumerate() {
                        *to = from[row * from_pitch + column];
                    }
                }
            }
        }
    }
}

fn whole_block<const ELEMENT: usize, const LINE: usize>(
    from: &[[u8; ELEMENT]],
    from_pitch: usize,
    to: &mut [[u8; ELEMENT]],
    to_pitch: usize,
) {
    let mut block = [[[0; ELEMENT]; LINE]; LINE];
    for row in 0..LINE {
        let line = &from[row * from_pitch..][..LINE];
        for column in 0..LINE {
            block[column][row] = line[column];
        }
    }
    for (column, line) in block.iter().enumerate() {
        to[column * to_pitch..][..LINE].copy_from_slice(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<const ELEMENT: usize, const LINE: usize>(random: &mut fastrand::Rng) {
        let sizes = [1, LINE - 1, LINE, LINE + 1, 2 * LINE, 3 * LINE - 1];
        for (rows, columns) in sizes.into_iter().flat_map(|rows| sizes.map(|c| (rows, c))) {
            let from_pitch = columns + random.usize(0..3);
            let to_pitch = rows + random.usize(0..3);
            let mut from = vec![[0; ELEMENT]; (rows - 1) * from_pitch + columns];
            random.fill(from.as_flattened_mut());
            let before = [7; ELEMENT];
            let mut to = vec![before; (columns - 1) * to_pitch + rows];
            let mut expected = to.clone();
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |c| (row, c))) {
                expected[column * to_pitch + row] = from[row * from_pitch + column];
            }
            let size = (rows, columns);
            transpose::<ELEMENT, LINE>(&from, from_pitch, size, &mut to, to_pitch);
            assert!(to == expected, "{ELEMENT} bytes, {rows} x {columns}");
        }
    }

    #[test]
    fn blocks_and_what_is_left_beside_them_are_transposed_and_nothing_between_rows_is_written() {
        let mut random = fastrand::Rng::with_seed(20261129);
        check::<1, 64>(&mut random);
        check::<2, 32>(&mut random);
        check::<4, 16>(&mut random);
        check::<8, 8>(&mut random);
    }
}

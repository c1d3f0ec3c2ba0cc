//! Blocks for any processor.

/// `LINE` rows and columns, by way of the stack.
pub(super) fn block<const ELEMENT: usize, const LINE: usize>(
    from: &[[u8; ELEMENT]],
    from_pitch: usize,
    to: &mut [[u8; ELEMENT]],
    to_pitch: usize,
) {
    let mut block = [[[0; ELEMENT]; LINE]; LINE];
    for row in 0..LINE {
        let line: &[[u8; ELEMENT]; LINE] = from[row * from_pitch..].first_chunk().expect("a line");
        for column in 0..LINE {
            block[column][row] = line[column];
        }
    }
    for (column, line) in block.iter().enumerate() {
        *to[column * to_pitch..].first_chunk_mut().expect("a line") = *line;
    }
}

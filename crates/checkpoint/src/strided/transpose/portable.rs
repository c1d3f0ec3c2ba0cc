//! Blocks for any processor.

use super::Block;
#[cfg(not(target_arch = "x86_64"))]
use super::Store;

/// `LINE` rows and columns, as columns and rows.
pub(super) fn block<const ELEMENT: usize, const LINE: usize>(
    from: &[[u8; ELEMENT]],
    pitch: usize,
    to: &mut Block<ELEMENT, LINE>,
) {
    for row in 0..LINE {
        let line: &[[u8; ELEMENT]; LINE] = from[row * pitch..].first_chunk().expect("a line");
        for (column, element) in to.0.iter_mut().zip(line) {
            column[row] = *element;
        }
    }
}

/// Writes a line.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn store(line: &[u8], to: &mut [u8], _: Store) {
    to.copy_from_slice(line);
}

/// After the last line.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn finish(_: Store) {}

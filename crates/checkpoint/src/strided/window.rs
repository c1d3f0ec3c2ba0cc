//! A matrix in memory, which several threads write at once, each its own rows or columns.

use std::marker::PhantomData;
use std::ptr::NonNull;

/// Rows of bytes in memory, a pitch apart. It is the only way to reach them for as long as it lives, like a `&mut [u8]`; but
/// between its rows may lie what is another's.
pub(super) struct Window<'a> {
    start: NonNull<u8>,
    rows: usize,
    width: usize,
    pitch: usize,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: it is borrowed as `&mut [u8]` is, which may be sent; no two windows have a byte in common.
unsafe impl Send for Window<'_> {}

impl<'a> Window<'a> {
    /// All of a matrix, whose rows have `width` bytes.
    ///
    /// # Panics
    ///
    /// If the memory does not end with a row.
    pub(super) fn new(memory: &'a mut [u8], width: usize) -> Window<'a> {
        let rows = memory.len() / width.max(1);
        assert_eq!(rows * width, memory.len(), "whole rows");
        Window::within(memory, rows, width, width)
    }

    /// The first `width` bytes of every `pitch`, so many times.
    pub(super) fn within(
        memory: &'a mut [u8],
        rows: usize,
        width: usize,
        pitch: usize,
    ) -> Window<'a> {
        let last = rows.checked_sub(1).map_or(0, |last| last * pitch + width);
        assert!(last <= memory.len() && width <= pitch.max(width * usize::from(rows < 2)));
        Window {
            start: NonNull::from(memory).cast(),
            rows,
            width,
            pitch,
            memory: PhantomData,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of a row.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// From one row to the next.
    pub(super) fn pitch(&self) -> usize {
        self.pitch
    }

    /// The first byte. Those of a row follow it, and those of other rows a pitch further each; none between rows is to be touched.
    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The bytes of a row.
    pub(super) fn row(&mut self, row: usize) -> &mut [u8] {
        assert!(row < self.rows);
        // SAFETY: within the memory that it was made of, or it would have no such row; nobody else has these bytes.
        unsafe { std::slice::from_raw_parts_mut(self.byte(row * self.pitch).as_ptr(), self.width) }
    }

    /// The rows before this one, and the rest.
    pub(super) fn split_rows(self, at: usize) -> (Window<'a>, Window<'a>) {
        assert!(at <= self.rows);
        let behind = match at < self.rows {
            true => self.byte(at * self.pitch),
            false => self.start,
        };
        let rows = self.rows - at;
        (
            Window { rows: at, ..self },
            Window {
                start: behind,
                rows,
                ..self
            },
        )
    }

    /// Of every row the bytes before this one, and the rest.
    pub(super) fn split_columns(self, at: usize) -> (Window<'a>, Window<'a>) {
        assert!(at <= self.width);
        let behind = match self.rows {
            0 => self.start,
            _ => self.byte(at),
        };
        let width = self.width - at;
        (
            Window { width: at, ..self },
            Window {
                start: behind,
                width,
                ..self
            },
        )
    }

    /// One behind its bytes at most.
    fn byte(&self, at: usize) -> NonNull<u8> {
        // SAFETY: whoever asks has checked that it is not past the end of what it was made of.
        unsafe { self.start.add(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_written_at_once_by_several_threads_make_the_whole() {
        for (rows, width) in [(1, 1), (5, 7), (64, 129), (3, 0)] {
            let mut memory = vec![0; rows * width];
            let (above, below) = match width {
                0 => Window::new(&mut memory, width).split_rows(0),
                _ => Window::new(&mut memory, width).split_rows(rows / 2),
            };
            let parts = [above, below].map(|half| half.split_columns(width / 3));
            std::thread::scope(|scope| {
                for (number, mut part) in parts.into_iter().flat_map(<[_; 2]>::from).enumerate() {
                    scope.spawn(move || {
                        for row in 0..part.rows() {
                            part.row(row).fill(1 + number as u8);
                        }
                    });
                }
            });
            for (at, &byte) in memory.iter().enumerate() {
                let (row, column) = (at / width, at % width);
                let expected = 1 + 2 * u8::from(row >= rows / 2) + u8::from(column >= width / 3);
                assert_eq!(byte, expected, "{rows} x {width}: {row}, {column}");
            }
        }
    }
}

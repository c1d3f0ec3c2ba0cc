//! Blocks of elements of 4 bytes in registers that are as long as a cache line: each line is written by one instruction. By way of
//! the stack, as `sse2` does it, reading a transposed f32 matrix takes 1.2 times as long.

use std::arch::x86_64::{
    __m512i, _mm_sfence, _mm512_loadu_si512, _mm512_setzero_si512, _mm512_shuffle_i32x4,
    _mm512_storeu_si512, _mm512_stream_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::Store;
use crate::strided::window::Window;

const LINE: usize = 16;

/// Whether this processor can.
pub(super) fn is_there() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
}

/// Whole blocks: the first `rows` and `columns`, multiples of a line, as columns and rows.
pub(super) fn blocks<const ELEMENT: usize>(
    from: &[[u8; ELEMENT]],
    pitch: usize,
    (rows, columns): (usize, usize),
    to: &mut Window<'_>,
    how: Store,
) {
    assert!(is_there() && ELEMENT == 4);
    assert!(rows.is_multiple_of(LINE) && columns.is_multiple_of(LINE));
    if rows == 0 || columns == 0 {
        return;
    }
    assert!((rows - 1) * pitch + columns <= from.len());
    assert!(columns <= to.rows() && rows * ELEMENT <= to.width());
    let (to, to_pitch) = (to.as_mut_ptr(), to.pitch());
    let is_aligned = to.addr().is_multiple_of(64) && to_pitch.is_multiple_of(64);
    for column in (0..columns).step_by(LINE) {
        for row in (0..rows).step_by(LINE) {
            // SAFETY: the block's last row and column are not behind the last, whose end lies within `from` and `to`, as was
            // asserted; and so was that the processor can.
            unsafe {
                let from = from.as_ptr().add(row * pitch + column).cast();
                let to = to.add(column * to_pitch + row * ELEMENT);
                match how == Store::Past && is_aligned {
                    true => block::<true>(from, pitch * ELEMENT, to, to_pitch),
                    false => block::<false>(from, pitch * ELEMENT, to, to_pitch),
                }
            }
        }
    }
    // SAFETY: every x86-64 processor has SSE.
    unsafe { _mm_sfence() };
}

/// # Safety
///
/// 16 rows of 64 bytes can be read at `from` and written at `to`, which `PAST` the caches must be aligned to 64 bytes, as its
/// pitch; and the processor has AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn block<const PAST: bool>(
    from: *const u8,
    from_pitch: usize,
    to: *mut u8,
    to_pitch: usize,
) {
    let mut rows = [_mm512_setzero_si512(); LINE];
    for (row, register) in rows.iter_mut().enumerate() {
        // SAFETY: promised by the caller. It need not be aligned.
        *register = unsafe { _mm512_loadu_si512(from.add(row * from_pitch).cast()) };
    }
    for (column, register) in transposed(rows).iter().enumerate() {
        // SAFETY: promised by the caller, who also fences.
        unsafe {
            let to = to.add(column * to_pitch).cast::<__m512i>();
            match PAST {
                true => _mm512_stream_si512(to, *register),
                false => _mm512_storeu_si512(to, *register),
            }
        }
    }
}

/// Squares of 4 by 4 within each quarter of the registers, and then the quarters.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; LINE]) -> [__m512i; LINE] {
    let mut squares = rows;
    for four in squares.as_chunks_mut::<4>().0 {
        let [a, b, c, d] = *four;
        let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low_behind, high_behind) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        *four = [
            _mm512_unpacklo_epi64(low, low_behind),
            _mm512_unpackhi_epi64(low, low_behind),
            _mm512_unpacklo_epi64(high, high_behind),
            _mm512_unpackhi_epi64(high, high_behind),
        ];
    }
    let mut columns = squares;
    for at in 0..4 {
        let [a, b, c, d] = [0, 4, 8, 12].map(|four| squares[four + at]);
        // Even quarters of two registers, and odd ones.
        let even = [
            _mm512_shuffle_i32x4::<0x88>(a, b),
            _mm512_shuffle_i32x4::<0x88>(c, d),
        ];
        let odd = [
            _mm512_shuffle_i32x4::<0xdd>(a, b),
            _mm512_shuffle_i32x4::<0xdd>(c, d),
        ];
        columns[at] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        columns[4 + at] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        columns[8 + at] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
        columns[12 + at] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
    }
    columns
}

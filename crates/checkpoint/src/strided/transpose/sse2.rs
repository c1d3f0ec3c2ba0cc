//! Blocks in registers, of those that every x86-64 processor has. Compilers make no such thing of portable code, with which
//! reading a transposed f32 matrix takes 1.4 times as long, and with bounds checks in here an f16 one 1.2 times.

use std::arch::x86_64::{
    __m128i, _mm_loadu_si128, _mm_setzero_si128, _mm_sfence, _mm_storeu_si128, _mm_stream_si128,
    _mm_unpackhi_epi8, _mm_unpackhi_epi16, _mm_unpackhi_epi32, _mm_unpackhi_epi64,
    _mm_unpacklo_epi8, _mm_unpacklo_epi16, _mm_unpacklo_epi32, _mm_unpacklo_epi64,
};

use super::{Block, Store};

const REGISTER_BYTES: usize = 16;

/// `LINE` rows and columns as columns and rows, in squares that are as wide as a register.
pub(super) fn block<const ELEMENT: usize, const LINE: usize>(
    from: &[[u8; ELEMENT]],
    pitch: usize,
    to: &mut Block<ELEMENT, LINE>,
) {
    let width = REGISTER_BYTES / ELEMENT;
    const { assert!(LINE.is_multiple_of(REGISTER_BYTES / ELEMENT)) }
    assert!((LINE - 1) * pitch + LINE <= from.len());
    let to = to.0.as_flattened_mut().as_mut_ptr();
    for column in (0..LINE).step_by(width) {
        for row in (0..LINE).step_by(width) {
            // SAFETY: no row or column of the squares lies behind the block's last, whose end lies within `from`, as was
            // asserted, and within `to`. Every x86-64 processor has SSE2.
            unsafe {
                square(
                    from.as_ptr().add(row * pitch + column),
                    pitch,
                    to.add(column * LINE + row),
                    LINE,
                );
            }
        }
    }
}

/// Writes a line. Only whole cache lines go past the caches: parts of one would each be sent to memory.
pub(super) fn store(line: &[u8], to: &mut [u8], how: Store) {
    if how == Store::Cached || !to.as_ptr().addr().is_multiple_of(64) {
        to.copy_from_slice(line);
        return;
    }
    let ((from, _), (to, _)) = (line.as_chunks::<16>(), to.as_chunks_mut::<16>());
    for (from, to) in from.iter().zip(to) {
        // SAFETY: both have 16 bytes, and `to` is aligned to as many. `finish` is called before anybody reads them.
        unsafe {
            _mm_stream_si128(
                to.as_mut_ptr().cast(),
                _mm_loadu_si128(from.as_ptr().cast()),
            )
        };
    }
}

/// After the last line: what went past the caches is in order with what follows.
pub(super) fn finish(how: Store) {
    if how == Store::Past {
        // SAFETY: every x86-64 processor has SSE.
        unsafe { _mm_sfence() };
    }
}

/// # Safety
///
/// As many rows as a register has elements, and as many elements of each, can be read at `from` and written at `to`.
#[inline]
#[target_feature(enable = "sse2")]
unsafe fn square<const ELEMENT: usize>(
    from: *const [u8; ELEMENT],
    from_pitch: usize,
    to: *mut [u8; ELEMENT],
    to_pitch: usize,
) {
    let width = REGISTER_BYTES / ELEMENT;
    let mut registers = [_mm_setzero_si128(); REGISTER_BYTES];
    for (row, register) in registers[..width].iter_mut().enumerate() {
        // SAFETY: promised by the caller. It need not be aligned.
        *register = unsafe { _mm_loadu_si128(from.add(row * from_pitch).cast()) };
    }
    // Each step interleaves the rows of the first half with those of the second.
    for _ in 0..width.ilog2() {
        let rows = registers;
        for row in 0..width / 2 {
            let both = interleave::<ELEMENT>(rows[row], rows[row + width / 2]);
            [registers[2 * row], registers[2 * row + 1]] = both;
        }
    }
    for (column, register) in registers[..width].iter().enumerate() {
        // SAFETY: as above.
        unsafe { _mm_storeu_si128(to.add(column * to_pitch).cast(), *register) };
    }
}

/// The first element of both, the second of both, and so on.
#[inline]
#[target_feature(enable = "sse2")]
fn interleave<const ELEMENT: usize>(a: __m128i, b: __m128i) -> [__m128i; 2] {
    match ELEMENT {
        1 => [_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b)],
        2 => [_mm_unpacklo_epi16(a, b), _mm_unpackhi_epi16(a, b)],
        4 => [_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b)],
        8 => [_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b)],
        _ => unreachable!("elements of {ELEMENT} bytes"),
    }
}

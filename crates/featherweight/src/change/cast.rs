//! Elements of one dtype as those of another, a piece at a time.

use burn::tensor::{BoolStore, DType};
use checkpoint::Dtype;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// From a dtype in a file to one in memory. Between floats, between integers, and from booleans to how a backend stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cast {
    from: Dtype,
    into: DType,
}

/// A value that the target cannot hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfit {
    /// As text.
    pub value: String,
}

/// The same dtype in Burn's words.
pub fn burn_dtype(dtype: Dtype) -> DType {
    match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::Bf16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U16 => DType::U16,
        Dtype::U8 => DType::U8,
        Dtype::Bool => DType::Bool(BoolStore::Native),
    }
}

impl Cast {
    /// The way from one to the other; `None` where there is none that keeps what is meant.
    pub fn new(from: Dtype, into: DType) -> Option<Cast> {
        let is_meant = match into {
            DType::F64 | DType::F32 | DType::F16 | DType::BF16 => from.is_float(),
            DType::I64
            | DType::I32
            | DType::I16
            | DType::I8
            | DType::U64
            | DType::U32
            | DType::U16
            | DType::U8 => from.is_int(),
            DType::Bool(_) => from == Dtype::Bool,
            DType::Flex32 | DType::QFloat(_) => false,
        };
        is_meant.then_some(Cast { from, into })
    }

    /// The dtype in the file.
    pub fn stored(&self) -> Dtype {
        self.from
    }

    /// The dtype in memory.
    pub fn dtype(&self) -> DType {
        self.into
    }

    /// Whether the bytes stay as they are.
    pub fn is_none(&self) -> bool {
        // Booleans are looked at: a byte that is neither 0 nor 1 is none, and to take it for one is undefined behaviour.
        self.from != Dtype::Bool && burn_dtype(self.from) == self.into
    }

    /// Bytes of an element in the file.
    pub fn bytes_from(&self) -> usize {
        self.from.bytes() as usize
    }

    /// Bytes of an element in memory.
    pub fn bytes_into(&self) -> usize {
        self.into.size()
    }

    /// Converts as many elements as `from` has. `into` has room for exactly these.
    ///
    /// # Errors
    ///
    /// If a value does not fit: an integer out of range, or a finite float that would become infinite.
    pub fn convert(&self, from: &[u8], into: &mut [u8]) -> Result<(), Unfit> {
        assert_eq!(
            from.len() / self.bytes_from(),
            into.len() / self.bytes_into()
        );
        if self.is_none() {
            into.copy_from_slice(from);
            return Ok(());
        }
        match self.into {
            DType::Bool(store) => booleans(from, store, into),
            into_dtype if self.from.is_float() => floats(self.from, from, into_dtype, into),
            into_dtype => integers(self.from, from, into_dtype, into),
        }
    }
}

fn booleans(from: &[u8], store: BoolStore, into: &mut [u8]) -> Result<(), Unfit> {
    if let Some(none) = from.iter().find(|&&byte| byte > 1) {
        return Err(Unfit::of(none));
    }
    match store {
        BoolStore::Native | BoolStore::U8 => into.copy_from_slice(from),
        BoolStore::U32 => {
            let (into, _) = into.as_chunks_mut::<4>();
            for (from, into) in from.iter().zip(into) {
                *into = u32::from(*from).to_le_bytes();
            }
        }
    }
    Ok(())
}

/// Elements that are converted at once: they stay in the first cache.
const BLOCK: usize = 1024;

fn floats(from_dtype: Dtype, from: &[u8], into_dtype: DType, into: &mut [u8]) -> Result<(), Unfit> {
    // Doubles on either side go by doubles, everything else by singles.
    if from_dtype == Dtype::F64 || into_dtype == DType::F64 {
        return doubles(from_dtype, from, into_dtype, into);
    }
    let (bytes_from, bytes_into) = (from_dtype.bytes() as usize, into_dtype.size());
    let pieces = from.chunks(BLOCK * bytes_from);
    for (from, into) in pieces.zip(into.chunks_mut(BLOCK * bytes_into)) {
        let mut singles = [0f32; BLOCK];
        let singles = &mut singles[..from.len() / bytes_from];
        read_singles(from_dtype, from, singles);
        match into_dtype {
            DType::F32 => {
                let (into, _) = into.as_chunks_mut::<4>();
                for (single, into) in singles.iter().zip(into) {
                    *into = single.to_le_bytes();
                }
            }
            DType::F16 => {
                let mut halves = [f16::ZERO; BLOCK];
                let halves = &mut halves[..singles.len()];
                halves.convert_from_f32_slice(singles);
                check_finite(
                    singles,
                    |single| f16::from_f32(single).is_infinite(),
                    || is_any(halves, |half| half.to_bits() & 0x7fff == 0x7c00),
                )?;
                let (into, _) = into.as_chunks_mut::<2>();
                for (half, into) in halves.iter().zip(into) {
                    *into = half.to_le_bytes();
                }
            }
            _ => {
                check_finite(
                    singles,
                    |single| bf16::from_f32(single).is_infinite(),
                    || is_any(singles, |single| single.abs() > LARGEST_BF16),
                )?;
                let (into, _) = into.as_chunks_mut::<2>();
                for (single, into) in singles.iter().zip(into) {
                    *into = round_to_bf16(*single).to_le_bytes();
                }
            }
        }
    }
    Ok(())
}

/// The largest number of bf16, 0x7f7f; what is larger may become infinite.
const LARGEST_BF16: f32 = f32::from_bits(0x7f7f << 16);

/// To the nearest, of two that are as near to the even one; a NaN stays one. As `bf16::from_f32`, without a branch, so that the compiler
/// makes vectors of it.
fn round_to_bf16(single: f32) -> u16 {
    let bits = single.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x40;
    let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
    (if is_nan { quiet } else { rounded }) as u16
}

/// Whether something is so of any of these: all are looked at, without a branch for each.
fn is_any<T: Copy>(values: &[T], is: impl Fn(T) -> bool) -> bool {
    values.iter().fold(false, |any, &value| any | is(value))
}

/// That no finite number becomes infinite. Where none can have, which is nearly always, that is known at once.
fn check_finite(
    singles: &[f32],
    becomes_infinite: impl Fn(f32) -> bool,
    may_be: impl FnOnce() -> bool,
) -> Result<(), Unfit> {
    if !may_be() {
        return Ok(());
    }
    let mut singles = singles.iter();
    match singles.find(|single| single.is_finite() && becomes_infinite(**single)) {
        Some(single) => Err(Unfit::of(single)),
        None => Ok(()),
    }
}

fn read_singles(dtype: Dtype, from: &[u8], singles: &mut [f32]) {
    match dtype {
        Dtype::F32 => {
            let (from, _) = from.as_chunks::<4>();
            for (from, single) in from.iter().zip(singles) {
                *single = f32::from_le_bytes(*from);
            }
        }
        Dtype::F16 => {
            let mut halves = [f16::ZERO; BLOCK];
            let halves = &mut halves[..singles.len()];
            let (from, _) = from.as_chunks::<2>();
            for (from, half) in from.iter().zip(halves.iter_mut()) {
                *half = f16::from_le_bytes(*from);
            }
            halves.convert_to_f32_slice(singles);
        }
        _ => {
            let (from, _) = from.as_chunks::<2>();
            for (from, single) in from.iter().zip(singles) {
                *single = f32::from_bits(u32::from(u16::from_le_bytes(*from)) << 16);
            }
        }
    }
}

fn doubles(
    from_dtype: Dtype,
    from: &[u8],
    into_dtype: DType,
    into: &mut [u8],
) -> Result<(), Unfit> {
    let from = from.chunks_exact(from_dtype.bytes() as usize);
    for (from, into) in from.zip(into.chunks_exact_mut(into_dtype.size())) {
        let double = match *from {
            [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
            _ => {
                let mut single = [0f32];
                read_singles(from_dtype, from, &mut single);
                f64::from(single[0])
            }
        };
        // Once, and not by way of a single: twice rounded is another number.
        let is_finite = match into_dtype {
            DType::F64 => {
                into.copy_from_slice(&double.to_le_bytes());
                double.is_finite()
            }
            DType::F32 => {
                let single = double as f32;
                into.copy_from_slice(&single.to_le_bytes());
                single.is_finite()
            }
            DType::F16 => {
                let half = f16::from_f64(double);
                into.copy_from_slice(&half.to_le_bytes());
                half.is_finite()
            }
            _ => {
                let half = bf16::from_f64(double);
                into.copy_from_slice(&half.to_le_bytes());
                half.is_finite()
            }
        };
        if double.is_finite() && !is_finite {
            return Err(Unfit::of(&double));
        }
    }
    Ok(())
}

fn integers(
    from_dtype: Dtype,
    from: &[u8],
    into_dtype: DType,
    into: &mut [u8],
) -> Result<(), Unfit> {
    let from = from.chunks_exact(from_dtype.bytes() as usize);
    for (from, into) in from.zip(into.chunks_exact_mut(into_dtype.size())) {
        let number = match (from_dtype, from) {
            (Dtype::I64, &[a, b, c, d, e, f, g, h]) => {
                i128::from(i64::from_le_bytes([a, b, c, d, e, f, g, h]))
            }
            (_, &[a, b, c, d, e, f, g, h]) => {
                i128::from(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
            }
            (Dtype::I32, &[a, b, c, d]) => i128::from(i32::from_le_bytes([a, b, c, d])),
            (_, &[a, b, c, d]) => i128::from(u32::from_le_bytes([a, b, c, d])),
            (Dtype::I16, &[a, b]) => i128::from(i16::from_le_bytes([a, b])),
            (_, &[a, b]) => i128::from(u16::from_le_bytes([a, b])),
            (Dtype::I8, &[a]) => i128::from(a as i8),
            (_, bytes) => i128::from(bytes[0]),
        };
        macro_rules! write_as {
            ($integer:ty) => {{
                let fit = <$integer>::try_from(number).map_err(|_| Unfit::of(&number))?;
                into.copy_from_slice(&fit.to_le_bytes());
            }};
        }
        match into_dtype {
            DType::I64 => write_as!(i64),
            DType::I32 => write_as!(i32),
            DType::I16 => write_as!(i16),
            DType::I8 => write_as!(i8),
            DType::U64 => write_as!(u64),
            DType::U32 => write_as!(u32),
            DType::U16 => write_as!(u16),
            _ => write_as!(u8),
        }
    }
    Ok(())
}

impl Unfit {
    fn of(value: &impl ToString) -> Unfit {
        Unfit {
            value: value.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast(from: Dtype, bytes: &[u8], into: DType) -> Result<Vec<u8>, Unfit> {
        let cast = Cast::new(from, into).expect("there is a way");
        let mut out = vec![0; bytes.len() / cast.bytes_from() * cast.bytes_into()];
        cast.convert(bytes, &mut out)?;
        Ok(out)
    }

    fn bytes<const N: usize>(values: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
        values.into_iter().flatten().collect()
    }

    #[test]
    fn floats_become_what_the_half_crate_makes_of_each() {
        let values: Vec<f32> = (0..1000).map(|at| (at as f32 - 500.0) * 0.37).collect();
        let singles = bytes(values.iter().map(|value| value.to_le_bytes()));
        let halves = bytes(
            values
                .iter()
                .map(|&value| f16::from_f32(value).to_le_bytes()),
        );
        let brains = bytes(
            values
                .iter()
                .map(|&value| bf16::from_f32(value).to_le_bytes()),
        );
        assert_eq!(cast(Dtype::F32, &singles, DType::F16).unwrap(), halves);
        assert_eq!(cast(Dtype::F32, &singles, DType::BF16).unwrap(), brains);
        let back = bytes(
            values
                .iter()
                .map(|&value| f16::from_f32(value).to_f32().to_le_bytes()),
        );
        assert_eq!(cast(Dtype::F16, &halves, DType::F32).unwrap(), back);
        let back = bytes(
            values
                .iter()
                .map(|&value| bf16::from_f32(value).to_f32().to_le_bytes()),
        );
        assert_eq!(cast(Dtype::Bf16, &brains, DType::F32).unwrap(), back);
        let doubles = bytes(values.iter().map(|&value| f64::from(value).to_le_bytes()));
        assert_eq!(cast(Dtype::F64, &doubles, DType::F32).unwrap(), singles);
        assert_eq!(cast(Dtype::F32, &singles, DType::F64).unwrap(), doubles);
        assert_eq!(cast(Dtype::F64, &doubles, DType::F16).unwrap(), halves);
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_what_is_infinite_stays_so() {
        let large = 1e6f32.to_le_bytes();
        assert_eq!(
            cast(Dtype::F32, &large, DType::F16).unwrap_err().value,
            "1000000"
        );
        let between = f32::from_bits(0x7f7f_8000).to_le_bytes();
        assert!(cast(Dtype::F32, &between, DType::BF16).is_err());
        let infinite = f32::INFINITY.to_le_bytes();
        let half = cast(Dtype::F32, &infinite, DType::F16).unwrap();
        assert!(f16::from_le_bytes([half[0], half[1]]).is_infinite());
        let wide = (1i64 << 40).to_le_bytes();
        assert!(cast(Dtype::I64, &wide, DType::I32).is_err());
        let negative = (-1i64).to_le_bytes();
        assert!(cast(Dtype::I64, &negative, DType::U8).is_err());
        assert_eq!(cast(Dtype::I64, &negative, DType::I32).unwrap(), [255; 4]);
        assert_eq!(cast(Dtype::U8, &[200], DType::I32).unwrap(), [200, 0, 0, 0]);
        assert!(cast(Dtype::F64, &1e300f64.to_le_bytes(), DType::F32).is_err());
    }

    #[test]
    fn every_single_is_rounded_to_bf16_as_the_half_crate_does() {
        let edges = [
            0u32,
            1 << 31,
            0x7f80_0000,
            0xff80_0000,
            0x7f80_0001,
            0x7fff_ffff,
            0x7f7f_7fff,
            0x3f80_8000,
            0x3f81_8000,
        ];
        for bits in edges
            .into_iter()
            .chain((0..1 << 20).map(|at: u32| at.wrapping_mul(0x9e37_79b1)))
        {
            let single = f32::from_bits(bits);
            assert_eq!(
                round_to_bf16(single),
                bf16::from_f32(single).to_bits(),
                "{bits:x}"
            );
        }
    }

    #[test]
    fn a_byte_that_is_no_boolean_is_refused() {
        let native = DType::Bool(BoolStore::Native);
        assert_eq!(cast(Dtype::Bool, &[0, 1], native).unwrap(), [0, 1]);
        assert!(cast(Dtype::Bool, &[0, 2], native).is_err());
        let wide = cast(Dtype::Bool, &[0, 1], DType::Bool(BoolStore::U32));
        assert_eq!(wide.unwrap(), [0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn there_is_no_way_between_kinds() {
        assert!(Cast::new(Dtype::I64, DType::F32).is_none());
        assert!(Cast::new(Dtype::F32, DType::I32).is_none());
        assert!(Cast::new(Dtype::U8, DType::Bool(BoolStore::Native)).is_none());
    }
}

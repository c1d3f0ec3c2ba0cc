//! Element types of tensors.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The element type of a tensor, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// 8-bit integers; of quantised matrices, whose scales are a tensor of their own, the values.
    I8,
    /// IEEE 754 double precision.
    F64,
    /// 64-bit integers.
    I64,
    /// 32-bit integers.
    I32,
    /// 16-bit integers.
    I16,
    /// Unsigned 64-bit integers.
    U64,
    /// Unsigned 32-bit integers.
    U32,
    /// Unsigned 16-bit integers.
    U16,
    /// Unsigned 8-bit integers.
    U8,
    /// A byte that is 0 for false and 1 for true. Nobody has checked that a file holds no other.
    Bool,
}

impl Dtype {
    /// Every dtype that a model can have.
    pub const ALL: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

    /// Every dtype that a tensor can have.
    pub const KNOWN: [Dtype; 13] = [
        Dtype::F32,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::I8,
        Dtype::F64,
        Dtype::I64,
        Dtype::I32,
        Dtype::I16,
        Dtype::U64,
        Dtype::U32,
        Dtype::U16,
        Dtype::U8,
        Dtype::Bool,
    ];

    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// The name on the command line, in manifests and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::I8 => "i8",
            Dtype::F64 => "f64",
            Dtype::I64 => "i64",
            Dtype::I32 => "i32",
            Dtype::I16 => "i16",
            Dtype::U64 => "u64",
            Dtype::U32 => "u32",
            Dtype::U16 => "u16",
            Dtype::U8 => "u8",
            Dtype::Bool => "bool",
        }
    }

    /// Whether weights can have it: [`Checkpoint::tensors`](crate::Checkpoint::tensors) are of these.
    pub const fn is_weight(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::F16 | Dtype::Bf16 | Dtype::I8)
    }

    /// Whether elements are floats.
    pub const fn is_float(self) -> bool {
        matches!(self, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::Bf16)
    }

    /// Whether elements are integers, with a sign or without.
    pub const fn is_int(self) -> bool {
        !self.is_float() && !matches!(self, Dtype::Bool)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Dtype::ALL.into_iter().find(|dtype| dtype.name() == text);
        known.ok_or_else(|| format!("unknown dtype `{text}`: use f32, f16 or bf16"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dtype_is_written_in_records_by_its_name() {
        for dtype in Dtype::KNOWN {
            let name = serde_json::to_value(dtype).unwrap();
            assert_eq!(name, dtype.name());
            assert_eq!(serde_json::from_value::<Dtype>(name).unwrap(), dtype);
        }
    }

    #[test]
    fn a_model_of_integers_cannot_be_asked_for() {
        for dtype in Dtype::KNOWN {
            let is_models = Dtype::ALL.contains(&dtype);
            assert_eq!(dtype.name().parse::<Dtype>().is_ok(), is_models, "{dtype}");
        }
    }
}

//! What is found in a checkpoint: tensors, and entries that are none.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Dtype, TensorRange};

/// What a format's reader finds.
#[derive(Default)]
pub(crate) struct Found {
    pub tensors: Vec<TensorRange>,
    pub others: Vec<Other>,
    /// What a file says of itself in words, by names.
    pub metadata: BTreeMap<String, String>,
}

impl Found {
    /// A tensor of these elements, or why it is none that can be loaded.
    pub fn add(&mut self, name: &str, tensor: Result<TensorRange, Unreadable>) {
        match tensor {
            Ok(tensor) if tensor.shape.contains(&0) => {
                self.refuse(name, Unreadable::Empty(tensor.shape), None);
            }
            Ok(tensor) => self.tensors.push(tensor),
            Err(reason) => self.refuse(name, reason, None),
        }
    }

    /// An entry that is no tensor that can be loaded, with its bytes where they lie in the file: see [`Other::bytes`].
    pub fn refuse(&mut self, name: &str, reason: Unreadable, bytes: Option<TensorRange>) {
        self.others.push(Other {
            name: name.to_owned(),
            reason,
            bytes,
        });
    }

    pub fn append(&mut self, mut more: Found) {
        self.tensors.append(&mut more.tensors);
        self.others.append(&mut more.others);
        self.metadata.append(&mut more.metadata);
    }
}

/// An entry of a checkpoint that cannot be loaded: a mask of booleans, say, or a number.
#[derive(Debug, Clone, PartialEq)]
pub struct Other {
    /// Its name.
    pub name: String,
    /// Why it cannot be.
    pub reason: Unreadable,
    /// Where its elements are of another type: where their bytes lie, as a tensor of i8 with one dimension more, which is as long
    /// as an element.
    pub bytes: Option<TensorRange>,
}

/// The bytes of a tensor whose elements have so many: see [`Other::bytes`].
pub(crate) fn bytes_of(mut tensor: TensorRange, element_bytes: usize) -> TensorRange {
    for stride in &mut tensor.strides {
        *stride = stride.saturating_mul(element_bytes);
    }
    tensor.shape.push(element_bytes);
    tensor.strides.push(1);
    tensor.dtype = Dtype::I8;
    tensor
}

/// Why an entry of a checkpoint cannot be loaded. It is displayed as the end of a sentence that begins with its name.
#[derive(Debug, Clone, PartialEq)]
pub enum Unreadable {
    /// It is a number, a text, or something else that is no tensor.
    NoTensor,
    /// Its elements are of this type, in the file's own words.
    Dtype(String),
    /// It has no elements, and this shape.
    Empty(Vec<usize>),
    /// An index lists it, and it is not there.
    Missing {
        /// The name of the index.
        index: String,
        /// The file that should hold it.
        file: String,
    },
    /// Its bytes do not lie in the file as they are.
    Packed {
        /// The record of the zip that holds them.
        member: String,
        /// What was done to it: "compressed".
        how: &'static str,
    },
    /// It is a tensor that is not understood, for this reason.
    Unsupported(String),
}

impl Unreadable {
    /// Whether it is for its elements being integers, booleans or doubles: of these it can be told whether one is zero.
    pub fn is_counted(&self) -> bool {
        const INTEGERS: [&str; 15] = [
            "BOOL",
            "U8",
            "I16",
            "I32",
            "I64",
            "torch.BoolStorage",
            "torch.ByteStorage",
            "torch.ShortStorage",
            "torch.IntStorage",
            "torch.LongStorage",
            "torch.bool",
            "torch.uint8",
            "torch.int16",
            "torch.int32",
            "torch.int64",
        ];
        self.is_double() || matches!(self, Unreadable::Dtype(dtype) if INTEGERS.contains(&&**dtype))
    }

    /// Whether it is for its elements being doubles.
    pub fn is_double(&self) -> bool {
        matches!(self, Unreadable::Dtype(dtype) if matches!(&**dtype, "F64" | "torch.DoubleStorage" | "torch.float64"))
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::NoTensor => f.write_str("is no tensor"),
            Unreadable::Dtype(dtype) => {
                write!(
                    f,
                    "is {dtype}: weights are f32, f16 or bf16, or i8 with scales"
                )
            }
            Unreadable::Empty(shape) => write!(
                f,
                "is empty, of shape {shape:?}: where it should have elements, it is a placeholder of DeepSpeed's ZeRO-3, and \
                 zero_to_fp32.py makes a whole checkpoint of its folder"
            ),
            Unreadable::Missing { index, file } => {
                write!(f, "is not in `{file}`, where {index} has it")
            }
            Unreadable::Packed { member, how } => write!(
                f,
                "lies in `{member}`, which is {how}: load the file in PyTorch, and save it again with torch.save"
            ),
            Unreadable::Unsupported(reason) => f.write_str(reason),
        }
    }
}

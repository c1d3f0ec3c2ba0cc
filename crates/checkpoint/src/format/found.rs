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

    /// An entry that is no weight, with where its elements lie if they are of a [`Dtype`] all the same.
    pub fn refuse(&mut self, name: &str, reason: Unreadable, range: Option<TensorRange>) {
        self.others.push(Other {
            name: name.to_owned(),
            reason,
            range,
            is_sound: true,
        });
    }

    pub fn append(&mut self, mut more: Found) {
        self.tensors.append(&mut more.tensors);
        self.others.append(&mut more.others);
        self.metadata.append(&mut more.metadata);
    }
}

/// An entry of a checkpoint that is no weight: a mask of booleans, say, a counter, or a number.
#[derive(Debug, Clone, PartialEq)]
pub struct Other {
    /// Its name.
    pub name: String,
    /// Why it is none.
    pub reason: Unreadable,
    /// Where its elements lie in the file, or are said to.
    range: Option<TensorRange>,
    /// Whether they can be read from there, and are the only ones under its name.
    is_sound: bool,
}

impl Other {
    /// The tensor that it is, of a dtype that weights do not have; `None` if it is none, or cannot be read. It has passed the
    /// checks that weights pass.
    pub fn tensor(&self) -> Option<&TensorRange> {
        self.range.as_ref().filter(|_| self.is_sound)
    }

    /// Where the bytes of its elements lie: as a tensor of i8 with one dimension more, which is as long as an element. It may
    /// have gaps that no reader gathers.
    pub fn bytes(&self) -> Option<TensorRange> {
        let mut bytes = self.range.clone()?;
        let element_bytes = bytes.dtype.bytes() as usize;
        for stride in &mut bytes.strides {
            *stride = stride.saturating_mul(element_bytes);
        }
        bytes.shape.push(element_bytes);
        bytes.strides.push(1);
        bytes.dtype = Dtype::I8;
        Some(bytes)
    }

    /// Checks the tensor that it may be. A bad one is nobody's concern but that of whoever asks for it.
    pub(crate) fn check(&mut self) {
        let is_sound = self
            .range
            .as_ref()
            .is_some_and(|range| range.check().is_ok());
        self.is_sound &= is_sound;
    }

    /// Makes its tensor one of the same name.
    pub(crate) fn name_tensor(&mut self) {
        if let Some(range) = &mut self.range {
            range.name.clone_from(&self.name);
        }
    }

    /// Notes that there is another entry of its name. Where the two are not the same tensor, nobody can tell which is the model's.
    pub(crate) fn meet(&mut self, other: &Other) {
        let ranges = self.range.as_ref().zip(other.range.as_ref());
        let is_same = ranges.is_some_and(|(one, other)| one.is_same(other).unwrap_or(false));
        self.is_sound &= is_same;
    }
}

/// Why an entry of a checkpoint is no weight. It is displayed as the end of a sentence that begins with its name.
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

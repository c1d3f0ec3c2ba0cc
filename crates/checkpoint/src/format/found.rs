//! What is found in a checkpoint: tensors, and entries that are none.

use std::collections::BTreeMap;
use std::fmt;

use crate::TensorRange;

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
        let reason = match tensor {
            Ok(tensor) if tensor.shape.contains(&0) => Unreadable::Empty(tensor.shape),
            Ok(tensor) => return self.tensors.push(tensor),
            Err(reason) => reason,
        };
        self.others.push(Other {
            name: name.to_owned(),
            reason,
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

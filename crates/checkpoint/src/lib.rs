//! Checkpoints on disk: what is in a file and where, without reading the weights.
//!
//! ```text
//!  model.safetensors      model.pth (zip, stored)       per-tensor/
//!  ┌────────┬──────┬───   ┌──────────┬─────────┬───     ├ tok_emb.weight.safetensors
//!  │ header │ data │      │ data.pkl │ data/0  │        ├ pos_emb.weight.safetensors
//!  └────────┴──────┴───   └──────────┴─────────┴───     └ …
//!            └─────────────────┬────────┘
//!            Checkpoint: name → dtype, shape, file, byte range
//! ```
//!
//! [`Checkpoint::open`] checks everything before anything is allocated: that every range lies within
//! its file, that shapes and lengths agree, that names are unique. A loader only sees ranges
//! ([`TensorRange`]), so a technique is written once for all formats.
//!
//! Several files with an index (Hugging Face's sharded checkpoints) are ranges in several files. A tensor need not lie in
//! a row: transposed matrices and parts of others are ranges with strides, and are gathered as they are read.
//!
//! Nothing but regular files is opened: a pipe or a device is refused by name. What is no checkpoint is told by its first bytes,
//! with what to do about it ([`Foreign`]). An entry that is no weight is listed with the reason ([`Checkpoint::others`]), and is
//! an error for whoever asks for a weight of its name, and for nobody else. Whoever loads counters, masks and doubles as well finds
//! them, too ([`Checkpoint::open_any`], [`Checkpoint::find_any`]).
//!
//! Limits: headers up to 100 MB (safetensors' own limit) and pickles up to 256 MiB, of which at most about 256 MiB is kept while
//! they are read, whatever logs they hold; tensors are of a [`Dtype`], weights f32, f16, bf16 or i8, little-endian, and contiguous
//! where they have more than two dimensions.
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

mod digest;
mod dtype;
mod error;
mod file;
mod foreign;
mod format;
mod index;
mod map;
#[cfg(feature = "pth")]
mod pth;
#[cfg(not(feature = "pth"))]
#[path = "pth_left_out.rs"]
mod pth;
mod reader;
mod strided;
mod synthetic;
mod whole;
mod write;

pub use digest::{Digest, Hasher};
pub use dtype::Dtype;
pub use error::{Error, Holds, StateDictAt, cut, escaped, is_shown, quoted};
pub use file::Special;
pub use foreign::{Foreign, is_of_adapter};
pub use format::{Format, Other, Shard, Unreadable};
pub use index::{Checkpoint, TensorRange};
pub use map::{Mapped, PrivateMap, PrivateMaps};
pub use reader::{Access, Aligned, Reader, blocks, open, read_at};
pub use strided::{Beside, Panel, beside};
pub use synthetic::Synthetic;
pub use whole::{is_there, read_text, read_whole};
pub use write::{PARTIAL_PREFIX, TensorMeta, Written, write, write_with_metadata};

//! GPT-2 as a Burn module, in the variant of *Build a Large Language Model (From Scratch)*: separate
//! query, key and value projections with biases, an output head that is not tied to the token
//! embedding, and no dropout (loading and inference need none).
//!
//! Three views of the same model:
//!
//! - [`Config`] says how large it is, and lists its tensors as a checkpoint names them
//!   ([`Config::tensors`]) without allocating anything;
//! - [`Gpt2`] is the Burn module, created lazily: no parameter holds memory before it is assigned or
//!   first used;
//! - [`Gpt2::tensors_mut`] joins the two: every tensor of the checkpoint with the parameters that hold
//!   it, in checkpoint order, ready to be assigned.
//!
//! What others call these tensors, and how they keep them, is said by layouts ([`layout::Layouts`]).
//!
//! The vocabulary tables are kept as row shards, because many devices cannot bind them whole
//! (Mesa's software Vulkan and most WebGPU-class drivers stop at 128 MiB; GPT-2 XL's tables take
//! 307 MiB each in f32). One forward serves one shard or many.
#![deny(missing_docs)]

mod config;
mod inventory;
pub mod layout;
mod model;
mod variant;

pub use config::{Config, InvalidSize, MOST_LAYERS, Size};
pub use inventory::{Initial, MODULE_PATHS, TensorSpec};
pub use model::{Block, Gpt2, ShardMut, TensorMut};
pub use variant::{Activation, Epsilon, Variant};

//! What others call the model's tensors, and how they keep them.
//!
//! A layout is a TOML file; the built-in ones lie beside this source. It says of each tensor of the model which tensor of the
//! file it is, or which part of one:
//!
//! ```toml
//! name = "mine"
//! variant = "gelu-tied"                 # what the model computes otherwise than GPT-2, by the words of free-form sizes
//! ignored = ["h.{layer}.attn.bias"]     # what is no weight
//!
//! [tensors]
//! "tok_emb.weight" = "wte.weight"
//! "trf_blocks.{layer}.att.W_query.weight" = { from = "h.{layer}.attn.c_attn.weight", transposed = true, part = 1, of = 3 }
//! "out_head.weight" = ["lm_head.weight", "wte.weight"]          # the first that is there
//! ```
//!
//! `transposed` is for matrices that are kept `[inputs, outputs]`; `part` counts from 1, along the outputs. Nothing is moved
//! for any of it: a transposed matrix is a byte range with other strides ([`checkpoint::TensorRange::transposed`]). What
//! stands before all names, `transformer.` or a wrapper's `module.`, is found out and need not be told.

mod description;
mod error;
mod file_tensor;
mod find;
mod known;
mod named;
mod unexpected;
mod wrappers;
mod write;

pub use description::MAX_LAYOUT_BYTES;
pub use error::Error;
pub use file_tensor::{Blocks, FileTensor, write_tensors};
pub use known::{Layouts, Reading};
pub use named::{Named, Tables};
pub use unexpected::Essential;

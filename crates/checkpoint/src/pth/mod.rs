//! PyTorch's zip format: `data.pkl` describes the state dict, `data/<key>` holds the storages, stored
//! without compression, so that every tensor is a range of the file's bytes.
//!
//! ```text
//!  archive ─► pickle ─► value ─► choice ─► tensor ─► read
//!  the zip    opcodes   what is  which     what      ranges of
//!                       there    dictionary  builds it  bytes
//! ```

mod archive;
mod beside;
mod choice;
mod input;
mod pickle;
mod read;
mod tensor;
mod value;
mod write;

pub(crate) use read::read_index;
pub(crate) use write::write;

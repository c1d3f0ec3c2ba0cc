//! PyTorch's zip format: `data.pkl` describes the state dict, `data/<key>` holds the storages, stored
//! without compression, so that every tensor is a range of the file's bytes.

mod pickle;
mod read;
mod write;

pub(crate) use read::read_index;
pub(crate) use write::write;

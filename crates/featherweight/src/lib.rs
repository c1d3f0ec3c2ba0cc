#![doc = include_str!("../README.md")]
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

mod assign;
pub mod carry;
pub mod change;
mod destinations;
mod divided;
mod error;
mod load;
mod loading;
mod observe;
mod opened;
pub mod place;
mod plan;
mod quantised;
mod read_back;
mod report;
mod save;
mod store;
mod verify;

/// What is on disk: formats, dtypes, the index, errors.
pub use checkpoint;
pub use checkpoint::{Dtype, Format};

pub use burn_store::{BurnToPyTorchAdapter, IdentityAdapter, PathFilter, PyTorchToBurnAdapter};

pub use error::Error;
pub use load::Load;
pub use observe::{Observe, Phase, Unobserved};
pub use opened::{Checkpoint, open, open_at};
pub use place::Way;
pub use plan::{Convention, Kind, Mismatch, Problem, Slot};
pub use report::{Loaded, Report};
pub use save::{Save, Saved, ToAdapter, save};
pub use store::Store;

//! What goes where: a module's parameters beside a checkpoint's tensors. Everything that does not match is found here, before
//! memory is taken.

mod convention;
mod fit;
mod mismatch;
mod names;
mod slots;
mod ties;

pub use convention::Convention;
pub use mismatch::{Mismatch, Problem};
pub use slots::{Kind, Slot};

pub(crate) use convention::{is_linear_weight, norm_name};
pub(crate) use fit::{Abilities, Item, Wanted, fit};
pub(crate) use names::{Names, wants};
pub(crate) use slots::{collect, place_in};
pub(crate) use ties::share;

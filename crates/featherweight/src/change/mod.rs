//! What happens to a piece on its way: nothing, a cast, or quantisation. (Transposing happens as it is read: a
//! [`TensorRange`](checkpoint::TensorRange) has strides.)

mod cast;
mod quantise;

pub(crate) use cast::burn_dtype;
pub use cast::{Cast, Unfit};
pub use quantise::Quantised;

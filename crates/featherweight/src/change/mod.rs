//! What happens to a piece on its way: nothing, a cast, or quantisation. (Transposing happens as it is read: a
//! [`TensorRange`](checkpoint::TensorRange) has strides.)

mod cast;
mod quantise;

pub use cast::{Cast, Unfit, burn_dtype};
pub use quantise::{Quantised, scale_of};

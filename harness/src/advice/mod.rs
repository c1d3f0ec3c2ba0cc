//! Which technique fits into the memory that is there, and is fastest: from the memory contracts, and from what is recorded.

mod choice;
mod evidence;
mod sheet;
mod situation;
mod times;

pub use choice::{Choice, choices, unbeaten};
pub use evidence::{Evidence, Place, Whose, evidence, read};
pub use sheet::sheet;
pub use situation::Situation;
pub use times::Times;

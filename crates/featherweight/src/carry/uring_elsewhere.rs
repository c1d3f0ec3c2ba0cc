//! io_uring is Linux's.

use super::Source;
use crate::Error;
use crate::place::{Fill, Staging};

pub(super) fn carry(
    _: &[Source],
    _: &mut [&mut dyn Fill],
    _: usize,
    _: Staging,
) -> Result<(), Error> {
    Err(Error::NoUring {
        reason: "it is Linux's".to_owned(),
    })
}

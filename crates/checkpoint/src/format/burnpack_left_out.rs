//! Burn's own files, in a program that was built without them.

use std::path::Path;

use super::{Format, Found};
use crate::Error;
use crate::write::{Source, Written};

pub(super) fn read_index(path: &Path) -> Result<Found, Error> {
    Err(Format::Burnpack.left_out(path))
}

pub(super) fn write(path: &Path, _: Source<'_>) -> Result<Written, Error> {
    Err(Format::Burnpack.left_out(path))
}

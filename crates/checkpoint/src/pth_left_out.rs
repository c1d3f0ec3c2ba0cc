//! PyTorch's files, in a program that was built without them.

use std::path::Path;

use crate::format::Found;
use crate::write::{Source, Written};
use crate::{Error, Format};

pub(crate) fn read_index(path: &Path, _: Option<&str>) -> Result<Found, Error> {
    Err(Format::Pth.left_out(path))
}

pub(crate) fn write(path: &Path, _: Source<'_>) -> Result<Written, Error> {
    Err(Format::Pth.left_out(path))
}

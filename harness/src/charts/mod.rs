//! charts
use std::path::Path;
use crate::summary::Line;
pub fn draw_all(_lines: &[Line], _results: &Path, _plots: &Path) -> anyhow::Result<()> { Ok(()) }

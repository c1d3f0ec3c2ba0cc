//! A folder with a safetensors file for each tensor.

use std::path::Path;

use super::{Found, header, safetensors};
use crate::Error;
use crate::write::{Source, Written};

const EXTENSION: &str = "safetensors";

pub(super) fn read_index(folder: &Path) -> Result<Found, Error> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "list"))? {
        let path = entry.map_err(Error::io(folder, "list"))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == EXTENSION)
        {
            files.push(path);
        }
    }
    if files.is_empty() {
        let reason = format!("is a folder without .{EXTENSION} files: no per-tensor checkpoint");
        return Err(Error::invalid(folder, reason));
    }
    files.sort();
    let mut found = Found::default();
    for file in files {
        header::check_inside(folder, &file)?;
        let one = safetensors::read_index(&file)?;
        if one.tensors.len() + one.others.len() != 1 {
            let reason = "holds several tensors: a per-tensor folder has one in each file";
            return Err(Error::invalid(&file, reason));
        }
        found.append(one);
    }
    Ok(found)
}

pub(super) fn write(folder: &Path, source: Source<'_>) -> Result<Written, Error> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
    let mut written = Written::default();
    let each: Vec<_> = (0..source.tensors().len()).map(|at| at..at + 1).collect();
    source.in_parts(&each, |_, one| {
        let name = &one.tensors()[0].name;
        if !header::is_file_name(name) {
            let reason = format!("tensor `{name}` has a name that no file can have");
            return Err(Error::invalid(folder, reason));
        }
        let path = folder.join(format!("{name}.{EXTENSION}"));
        written.append(safetensors::write(&path, one)?);
        Ok(())
    })?;
    Ok(written)
}

//! A folder with a safetensors file for each tensor.

use std::path::Path;

use super::{Format, Found, header, safetensors};
use crate::Error;
use crate::foreign::{self, Foreign};
use crate::write::{Source, Written};

const EXTENSION: &str = "safetensors";

pub(super) fn read_index(folder: &Path) -> Result<Found, Error> {
    let mut files = Vec::new();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "list"))? {
        let path = entry.map_err(Error::io(folder, "list"))?.path();
        let name = path.file_name().unwrap_or_default();
        names.push(name.to_string_lossy().into_owned());
        if path
            .extension()
            .is_some_and(|extension| extension == EXTENSION)
        {
            files.push(path);
        }
    }
    let is_it = |kind: &Foreign| files.is_empty() || *kind == Foreign::Adapter;
    if let Some(kind) = foreign::of_folder(&names).filter(is_it) {
        return Err(Error::Foreign {
            path: folder.to_owned(),
            kind,
        });
    }
    if files.is_empty() {
        return Err(Error::invalid(folder, without_files(names)));
    }
    files.sort();
    let mut found = Found::default();
    for file in files {
        header::check_inside(folder, &file)?;
        // What it is instead is said where that is known.
        let one = safetensors::read_index(&file).map_err(|error| match Format::detect(&file) {
            Err(known @ Error::Foreign { .. }) => known,
            _ => error,
        })?;
        if one.tensors.len() + one.others.len() != 1 {
            let reason = "holds several tensors, and a per-tensor folder has one in each file: name the file to be opened";
            return Err(Error::invalid(&file, reason));
        }
        found.append(one);
    }
    Ok(found)
}

/// What to say of a folder that has none of the files looked for.
fn without_files(mut names: Vec<String>) -> String {
    const CHECKPOINTS: [&str; 6] = [
        ".pth",
        ".pt",
        ".bin",
        ".ckpt",
        ".bpk",
        super::sharded::INDEX_SUFFIX,
    ];
    names.sort();
    let mut names = names.into_iter();
    match names.find(|name| CHECKPOINTS.iter().any(|end| name.ends_with(end))) {
        Some(name) => format!(
            "is a folder without .{EXTENSION} files, no per-tensor checkpoint: name a file in it, such as `{name}`"
        ),
        None => format!("is a folder without .{EXTENSION} files: no per-tensor checkpoint"),
    }
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

//! Where a trained model is written to: as it came in.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use checkpoint::{Dtype, Format, TensorMeta};
use gpt2::Size;
use gpt2::layout::Layouts;
use lab::Saving;

use super::{Ready, Store, beside, configuration, free_disk_bytes, metas};
use crate::cli::{ModelArgs, ReadingArgs};
use crate::exit::Ended;
use crate::units;

/// A trained model's checkpoint.
pub struct Target {
    pub saving: Saving,
    reading: ReadingArgs,
    size: Size,
    writes_configuration: bool,
}

impl Target {
    /// In the format, the names and the layout of the checkpoint that `args` give, in this dtype. Whatever is in the way is told
    /// now, and not after the training.
    pub fn new(
        args: &ModelArgs,
        ready: &Ready,
        dtype: Dtype,
        path: &Path,
    ) -> anyhow::Result<Target> {
        let layouts = Layouts::of(&args.reading.reading())?;
        let original = layouts.open(&args.checkpoint)?;
        let format = original.checkpoint.format();
        let metas = metas(&ready.size.config(), dtype);
        let tensors = original.as_written(&layouts, &metas)?;
        match is_folder(format) {
            true => check_folder(path, format)?,
            false => check_file(path)?,
        }
        let folder = match is_folder(format) {
            true => path.to_owned(),
            false => parent(path),
        };
        let ignored = &args.reading.ignored_config;
        configuration::check_beside(&folder, &ready.size.config(), ignored).with_context(|| {
            format!(
                "{}: would be read with the {} beside it, so save it elsewhere",
                path.display(),
                configuration::FILE
            )
        })?;
        let has_configuration = folder.join(configuration::FILE).exists();
        let other = match has_configuration {
            true => None,
            false => beside::other_checkpoint(&folder, path),
        };
        // A safetensors file says by itself what another says in a file beside it.
        if let Some(other) = &other
            && format != Format::Safetensors
        {
            let message = format!(
                "--save {}: a {} would be written beside it, and change what is read of {}: save it in a folder of its own",
                path.display(),
                configuration::FILE,
                other.display()
            );
            return Err(Ended::Usage(message).into());
        }
        let written: Vec<TensorMeta> = tensors.iter().map(|tensor| tensor.meta.clone()).collect();
        let needed = format.disk_bytes(&written);
        if let Some(free) = free_disk_bytes(path) {
            ensure!(
                needed <= free,
                "{}: the trained model takes {}, and the disk has {} free",
                path.display(),
                units::bytes(needed),
                units::bytes(free)
            );
        }
        Ok(Target {
            saving: Saving {
                path: path.to_owned(),
                format,
                tensors,
                metadata: configuration::metadata(&ready.size.config()),
            },
            // What is saved is a state dict and no more.
            reading: ReadingArgs {
                key: None,
                ..args.reading.clone()
            },
            size: ready.size,
            writes_configuration: !has_configuration && other.is_none(),
        })
    }

    /// Writes the model's configuration beside it, where none is and it tells of no other model, and checks that what lies there now is the model that was
    /// trained.
    pub fn finish(&self, store: &Store) -> anyhow::Result<()> {
        let path = &self.saving.path;
        let folder = match is_folder(self.saving.format) {
            true => path.clone(),
            false => parent(path),
        };
        if self.writes_configuration {
            configuration::write(&folder, &self.size.config())?;
        }
        let read = store
            .inspect(path, &self.reading, None)
            .with_context(|| format!("{} was saved, and cannot be read again", path.display()))?;
        ensure!(
            read.size == self.size,
            "{} was saved, but by the {} beside it it is a GPT-2 of size {}, not {}: move it to a folder of its own",
            path.display(),
            configuration::FILE,
            read.size,
            self.size
        );
        Ok(())
    }
}

fn is_folder(format: Format) -> bool {
    matches!(
        format,
        Format::PerTensor | Format::Sharded | Format::ShardedPth
    )
}

/// That a folder can be made there. One with something in it would be replaced.
fn check_folder(path: &Path, format: Format) -> anyhow::Result<()> {
    let is_empty = match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !path.exists(),
    };
    ensure!(
        is_empty,
        "{}: a checkpoint in the format {format} is a folder, and this is there already: give a new one",
        path.display()
    );
    check_parent(path)
}

/// That a file can be written there.
pub fn check_file(path: &Path) -> anyhow::Result<()> {
    ensure!(
        !path.is_dir(),
        "{}: is a folder: give the name of a file",
        path.display()
    );
    check_parent(path)
}

fn check_parent(path: &Path) -> anyhow::Result<()> {
    let folder = parent(path);
    let cannot = || format!("{}: cannot be written to", folder.display());
    std::fs::create_dir_all(&folder).with_context(cannot)?;
    tempfile::tempfile_in(&folder).with_context(cannot)?;
    Ok(())
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

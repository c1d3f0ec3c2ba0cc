//! The folder of checkpoints: what is prepared there, what was imported, and what a run needs of it.

mod adapter;
mod beside;
mod cast;
pub mod configuration;
pub mod derive;
mod hold;
pub mod hugging_face;
mod import;
mod made;
mod masks;
mod mismatch;
pub mod replacing;
mod sidecar;
pub mod trained;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use checkpoint::{Checkpoint, Dtype, Error, Format, Hasher, PARTIAL_PREFIX, Synthetic, TensorMeta};
use gpt2::layout::{Layouts, Named, Reading};
use gpt2::{Config, Initial, Size};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::ReadingArgs;
use crate::{interrupt, units};
use hold::{hold, remove_partial};
use sidecar::Origin;
pub use sidecar::Sidecar;

/// Chooses the weights of prepared checkpoints.
const SEED: u64 = 20260101;

/// What the file of the reference logits is called.
const REFERENCE: &str = "reference.safetensors";

/// A checkpoint that runs can load, in one or more formats.
#[derive(Debug, Clone)]
pub struct Ready {
    folder: PathBuf,
    /// What was imported, which is not copied.
    imported: Option<Imported>,
    pub size: Size,
    pub dtype: Dtype,
    /// Entries of the file that are no weights.
    pub ignored: Vec<String>,
    /// How many of its tensors are none of the model's, and are skipped.
    pub skipped: usize,
    /// Which weights it holds, in records.
    pub identity: String,
}

/// A checkpoint of the user's.
#[derive(Debug, Clone)]
struct Imported {
    format: Format,
    path: PathBuf,
    reading: Reading,
    /// Whether it holds the tensors as a prepared checkpoint does: under the book's names, each in a row.
    is_own: bool,
    /// Whether its weights are cast: what is loaded is a copy.
    is_cast: bool,
}

impl Ready {
    /// The checkpoint in this format, with the book's names.
    pub fn path(&self, format: Format) -> PathBuf {
        match &self.imported {
            Some(imported) if imported.is_own && imported.format == format => imported.path.clone(),
            _ => self.folder.join(format.file_name()),
        }
    }

    /// The user's file or folder, where it is of one.
    pub fn imported(&self) -> Option<&Path> {
        self.imported
            .as_ref()
            .map(|imported| imported.path.as_path())
    }

    /// The user's file and how it is read, where that is what is read: by what `reads_any` state dict, in its own format.
    pub fn as_it_is(&self, format: Format, reads_any: bool) -> Option<(PathBuf, Reading)> {
        let imported = self.imported.as_ref();
        let is_read =
            |imported: &&Imported| reads_any && imported.format == format && !imported.is_cast;
        let read = imported.filter(is_read);
        read.map(|imported| (imported.path.clone(), imported.reading.clone()))
    }

    /// A checkpoint of the very weights, and how it is read: the user's file, or the one in a format that a run reads.
    pub fn weights(&self, format: Format) -> (PathBuf, Reading) {
        match &self.imported {
            Some(imported) if !imported.is_cast => {
                (imported.path.clone(), imported.reading.clone())
            }
            // Computed of a plain checkpoint, whatever is made of it.
            _ if format.is_plain() => (self.path(format), Reading::default()),
            _ => (self.path(self.plain_format()), Reading::default()),
        }
    }

    /// Whether the very weights are in no file yet, but in one that is prepared of others.
    pub fn is_of_a_copy(&self) -> bool {
        self.imported
            .as_ref()
            .is_none_or(|imported| imported.is_cast)
    }

    /// The format of a checkpoint that others are made of.
    fn plain_format(&self) -> Format {
        match &self.imported {
            Some(imported) if imported.is_own && imported.format.is_plain() => imported.format,
            _ => Format::Safetensors,
        }
    }

    /// The digests of its tensors.
    pub fn sidecar(&self) -> PathBuf {
        self.folder.join(sidecar::FILE)
    }

    /// Takes hold of its folder: nobody else makes or clears away anything there meanwhile.
    pub fn hold(&self) -> anyhow::Result<File> {
        hold(&self.folder)
    }

    /// The logits that a loaded model must compute.
    pub fn reference(&self) -> PathBuf {
        self.folder.join(REFERENCE)
    }

    /// The format of a whole state dict: an imported file's own, where it is one.
    pub fn state_dict_format(&self, prepared: Format) -> Format {
        match &self.imported {
            Some(imported) if imported.format == Format::PerTensor || imported.is_cast => {
                Format::Safetensors
            }
            Some(imported) => imported.format,
            None => prepared,
        }
    }
}

/// The folder that checkpoints are kept in.
pub struct Store {
    root: PathBuf,
}

impl Store {
    pub fn new(root: PathBuf) -> Store {
        Store { root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the prepared checkpoint of this size and dtype is, whether it is there or not.
    pub fn prepared(&self, size: Size, dtype: Dtype) -> Ready {
        Ready {
            folder: self.root.join(format!("{size}-{dtype}")),
            imported: None,
            size,
            dtype,
            ignored: Vec::new(),
            skipped: 0,
            identity: format!("synthetic-{SEED}"),
        }
    }

    /// Bytes that preparing this would write: 0 where it is there already.
    pub fn missing_bytes(&self, ready: &Ready, format: Format) -> u64 {
        let is_there = match &ready.imported {
            // The user's own file, which is read and never written.
            Some(imported) if ready.path(format) == imported.path => true,
            // Written under another name, so that what is there is whole; of these weights, or the folder is
            // another.
            Some(_) if !format.is_plain() => ready.path(format).exists(),
            Some(_) => is_whole(
                &ready.path(format),
                &metas(&ready.size.config(), ready.dtype),
            ),
            None => self.is_prepared(ready, format),
        };
        match is_there {
            true => 0,
            false => format.disk_bytes(&metas(&ready.size.config(), ready.dtype)),
        }
    }

    /// Says so, before anything is written, where the disk has no room for `bytes` and `spare_bytes` more.
    pub fn check_disk(&self, bytes: u64, spare_bytes: u64) -> anyhow::Result<()> {
        let free = match free_disk_bytes(&self.root) {
            Some(free) if bytes > 0 => free,
            _ => return Ok(()),
        };
        ensure!(
            bytes + spare_bytes <= free,
            "{}: the checkpoints need {} and {} are to stay free, but the disk has {}: free some, choose \
             smaller sizes with --size, or another disk with --checkpoints",
            self.root.display(),
            units::bytes(bytes),
            units::bytes(spare_bytes),
            units::bytes(free)
        );
        Ok(())
    }

    /// Makes sure that the prepared checkpoint is there in this format. What is there and whole is reused.
    pub fn prepare(&self, ready: &Ready, format: Format) -> anyhow::Result<()> {
        if self.missing_bytes(ready, format) == 0 {
            return Ok(());
        }
        if !format.is_plain() {
            // What it is made of.
            self.prepare(ready, ready.plain_format())?;
        }
        let _held = hold(&ready.folder)?;
        if self.missing_bytes(ready, format) == 0 {
            // Another harness has made it meanwhile.
            return Ok(());
        }
        remove_partial(&ready.folder);
        let config = ready.size.config();
        let metas = metas(&config, ready.dtype);
        let path = ready.path(format);
        assert!(
            path.starts_with(&ready.folder),
            "{}: nothing is written outside of the folder of checkpoints",
            path.display()
        );
        if !format.is_plain() {
            let from = ready.path(ready.plain_format());
            told("preparing", &path, format.disk_bytes(&metas));
            derive::in_a_process(&from, ready.size, format, &path)?;
            return configuration::write(&ready.folder, &config);
        }
        let written = match &ready.imported {
            Some(imported) => convert(imported, &path, format, &config, &metas)?,
            None => {
                let sources: BTreeMap<_, _> = config
                    .tensors()
                    .into_iter()
                    .map(|tensor| (tensor.name.clone(), synthetic(&tensor.name, tensor.initial)))
                    .collect();
                write(&path, format, &config, &metas, |meta, sink| {
                    sources[&meta.name].fill(meta, sink)
                })?
            }
        };
        let origin = Origin::Synthetic { seed: SEED };
        let digests = written.digests.into_iter().collect();
        let sidecar = Sidecar::new(origin, ready.size, ready.dtype, digests);
        match Sidecar::load(&ready.sidecar()) {
            // Of an imported file, or of another format of the same weights.
            Ok(before) if before.digests == sidecar.digests => Ok(()),
            Ok(before) if before.origin != sidecar.origin => {
                bail!("{}: differs from the file it was made of", path.display())
            }
            _ => {
                // The weights are other ones than before: what was computed and made of those is void.
                let _ = std::fs::remove_file(ready.reference());
                let made = Format::ALL.into_iter().filter(|format| !format.is_plain());
                for made in made {
                    let _ = std::fs::remove_file(ready.path(made));
                }
                sidecar.save(&ready.sidecar())
            }
        }
    }

    fn is_prepared(&self, ready: &Ready, format: Format) -> bool {
        let Ok(sidecar) = Sidecar::load(&ready.sidecar()) else {
            return false;
        };
        let path = ready.path(format);
        sidecar.is_of(&Origin::Synthetic { seed: SEED }, ready.size)
            && match format.is_plain() {
                true => is_whole(&path, &metas(&ready.size.config(), ready.dtype)),
                // Written under another name, so that what is there is whole.
                false => path.exists(),
            }
    }

    /// What a checkpoint of the user's is: its size is read off it, and every tensor looked for. Nothing is written.
    pub fn inspect(
        &self,
        file: &Path,
        reading: &ReadingArgs,
        size: Option<Size>,
    ) -> anyhow::Result<Ready> {
        let opened = Layouts::of(&reading.reading())?.open(file)?;
        self.ready_of(file, &opened, reading, size)
    }

    fn ready_of(
        &self,
        file: &Path,
        opened: &Named,
        reading: &ReadingArgs,
        size: Option<Size>,
    ) -> anyhow::Result<Ready> {
        adapter::refuse(file)?;
        import::refuse_quantised(opened)?;
        let (checkpoint, ignored) = (&opened.checkpoint, &reading.ignored_config);
        let told = configuration::find(file, checkpoint, &opened.layout, ignored);
        let config = import::config_of(opened, size, told, ignored)?;
        configuration::check(checkpoint.metadata(), &config, ignored)
            .map_err(|wrong| anyhow!("{}: {wrong}", checkpoint.path().display()))?;
        mismatch::check(opened, &config, reading.strict)?;
        // What a layout file of one's own ignores is ignored.
        if reading.layout.is_none() {
            masks::check(opened)?;
        }
        let tensors = import::tensors(opened, &config);
        let dtype = import::dtype_of(file, opened, &tensors, reading.cast)?;
        let is_cast = tensors.iter().any(|tensor| tensor.dtype != dtype);
        // A training checkpoint: what reads state dicts alone gets a copy of that.
        let is_pickle = matches!(checkpoint.format(), Format::Pth | Format::ShardedPth);
        let holds_more = !checkpoint.metadata().is_empty();
        let path = std::path::absolute(opened.checkpoint.path())?;
        let given = [Some(&path), reading.layout.as_ref(), Some(&self.root)];
        given
            .into_iter()
            .flatten()
            .try_for_each(|path| recordable(path))?;
        let size = Size::of(config);
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let key = key_of(&path, &reading.reading(), dtype, size)?;
        let folder = self.root.join(format!("{stem}-{key:.16}"));
        Ok(Ready {
            folder,
            imported: Some(Imported {
                format: opened.checkpoint.format(),
                path,
                reading: reading.reading(),
                is_own: opened.is_own()
                    && reading.key.is_none()
                    && opened.unexpected.is_empty()
                    && opened.ignored.is_empty()
                    && !(is_pickle && holds_more)
                    && !is_cast,
                is_cast,
            }),
            size,
            dtype,
            ignored: opened.ignored.clone(),
            skipped: opened.unexpected.len() + opened.unreadable.len(),
            identity: String::new(),
        })
    }

    /// Makes a checkpoint of the user's usable: [`Store::inspect`]s it, and digests its tensors. The file itself stays where
    /// it is and is not copied.
    pub fn import(
        &self,
        file: &Path,
        reading: &ReadingArgs,
        size: Option<Size>,
    ) -> anyhow::Result<Ready> {
        let opened = Layouts::of(&reading.reading())?.open(file)?;
        let mut ready = self.ready_of(file, &opened, reading, size)?;
        let tensors = import::tensors(&opened, &ready.size.config());
        let origin = Origin::of(&opened.checkpoint, &reading.reading(), ready.dtype)?;
        let _held = hold(&ready.folder)?;
        let before = Sidecar::load(&ready.sidecar());
        let current = before
            .ok()
            .filter(|before| before.is_of(&origin, ready.size));
        let sidecar = if let Some(current) = current {
            current
        } else {
            std::fs::create_dir_all(&ready.folder)
                .with_context(|| format!("{}: cannot be created", ready.folder.display()))?;
            made::remove(&ready.folder, &ready.size.config())?;
            let bytes = tensors.iter().map(|tensor| tensor.bytes()).sum();
            let bar = progress("digesting", file, bytes);
            let mut digests = BTreeMap::new();
            for tensor in tensors {
                ensure!(!interrupt::requested(), "interrupted");
                let mut hasher = Hasher::default();
                cast::read(tensor, ready.dtype, |piece| {
                    hasher.update(piece);
                    Ok(())
                })?;
                digests.insert(tensor.name.clone(), hasher.finish());
                bar.inc(tensor.bytes());
            }
            bar.finish_and_clear();
            let sidecar = Sidecar::new(origin, ready.size, ready.dtype, digests);
            sidecar.save(&ready.sidecar())?;
            sidecar
        };
        ready.identity = sidecar.identity();
        Ok(ready)
    }
}

/// That a path can stand in a record, which is text.
fn recordable(path: &Path) -> anyhow::Result<()> {
    ensure!(
        path.to_str().is_some(),
        "{}: is no UTF-8, and a path that is not cannot be recorded: give it another name, or a link to it",
        path.display()
    );
    Ok(())
}

/// Tells a reading of a file from another: what is made of each lies in a folder of its own, so that two at a time do not take
/// away what the other reads.
fn key_of(path: &Path, reading: &Reading, dtype: Dtype, size: Size) -> anyhow::Result<String> {
    let layout = sidecar::digest_of_layout(reading)?;
    let mut hasher = Hasher::default();
    hasher.update(path.as_os_str().as_encoded_bytes());
    hasher.update(format!("\0{:?} {layout:?} {dtype} {size}", reading.key).as_bytes());
    Ok(hasher.finish().to_string())
}

/// Bytes free for this user on the disk that holds `path` or would hold it.
pub fn free_disk_bytes(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let existing = path.ancestors().find(|path| path.exists())?;
    fs4::available_space(existing).ok()
}

pub fn metas(config: &Config, dtype: Dtype) -> Vec<TensorMeta> {
    let specs = config.tensors().into_iter();
    let metas = specs.map(|spec| TensorMeta {
        name: spec.name,
        dtype,
        shape: spec.shape,
    });
    metas.collect()
}

/// Weights that look trained, and like no initialisation of the model's: a load that does nothing must
/// not pass.
fn synthetic(name: &str, initial: Initial) -> Synthetic {
    // Half the width of a uniform distribution with GPT-2's deviation of 0.02.
    const SPREAD: f32 = 0.034641;
    let (centre, spread) = match initial {
        Initial::Ones => (1.0, 0.1),
        Initial::Zeros => (0.0, 0.05),
        Initial::Uniform { .. } if name.ends_with(".bias") => (0.0, 0.02),
        Initial::Uniform { .. } | Initial::Normal => (0.0, SPREAD),
    };
    Synthetic {
        seed: SEED,
        centre,
        spread,
    }
}

/// Whether a checkpoint is there with exactly these tensors, none reaching past the end of its file.
fn is_whole(path: &Path, metas: &[TensorMeta]) -> bool {
    let Ok(checkpoint) = Checkpoint::open(path) else {
        return false;
    };
    checkpoint.tensors().len() == metas.len()
        && metas.iter().all(|meta| {
            let tensor = checkpoint.tensor(&meta.name, &meta.shape);
            tensor.is_ok_and(|tensor| tensor.dtype == meta.dtype)
        })
}

fn convert(
    from: &Imported,
    to: &Path,
    format: Format,
    config: &Config,
    metas: &[TensorMeta],
) -> anyhow::Result<checkpoint::Written> {
    let source = Layouts::of(&from.reading)?.open(&from.path)?.checkpoint;
    write(to, format, config, metas, |meta, sink| {
        let tensor = source.tensor(&meta.name, &meta.shape)?;
        cast::read(tensor, meta.dtype, sink)
    })
}

type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), Error>;

/// Writes a checkpoint with a progress bar, and the model's configuration with it: in its metadata, and in a file beside it.
fn write(
    path: &Path,
    format: Format,
    config: &Config,
    metas: &[TensorMeta],
    mut fill: impl FnMut(&TensorMeta, Sink<'_>) -> Result<(), Error>,
) -> anyhow::Result<checkpoint::Written> {
    let bar = progress("preparing", path, metas.iter().map(TensorMeta::bytes).sum());
    let about = configuration::metadata(config);
    let mut fill = |meta: &TensorMeta, sink: Sink<'_>| {
        fill(meta, &mut |piece| {
            if interrupt::requested() {
                return Err(Error::Invalid {
                    path: path.to_owned(),
                    reason: "was being prepared when it was interrupted".to_owned(),
                });
            }
            sink(piece)?;
            bar.inc(piece.len() as u64);
            Ok(())
        })
    };
    let folder = path.parent().context("a file lies in a folder")?;
    let cannot = || format!("{}: cannot be written", path.display());
    std::fs::create_dir_all(folder).with_context(cannot)?;
    let partial = tempfile::Builder::new()
        .prefix(PARTIAL_PREFIX)
        .tempdir_in(folder)
        .with_context(cannot)?;
    let unfinished = partial.path().join("checkpoint");
    let written = checkpoint::write_with_metadata(&unfinished, format, metas, &about, &mut fill)?;
    // Of a folder of shards, all that is the model's is in it.
    if matches!(format, Format::Sharded | Format::ShardedPth) {
        configuration::write(&unfinished, config)?;
    }
    made::install(&unfinished, path, config)?;
    configuration::write(folder, config)?;
    bar.finish_and_clear();
    Ok(written)
}

fn progress(doing: &str, path: &Path, bytes: u64) -> ProgressBar {
    let style =
        "{prefix} {msg} {bar:24} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    let bar = ProgressBar::new(bytes);
    bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
    bar.set_prefix(doing.to_owned());
    bar.set_message(path.display().to_string());
    if bar.is_hidden() {
        told(doing, path, bytes);
    }
    bar
}

fn told(doing: &str, path: &Path, bytes: u64) {
    eprintln!("{doing} {} ({})", path.display(), units::bytes(bytes));
}

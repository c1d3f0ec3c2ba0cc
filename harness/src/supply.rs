//! The checkpoints that the planned runs load: prepared ones, or the user's own.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use checkpoint::{Format, escaped};

use crate::checkpoints::{Ready, Store};
use crate::cli::RunOptions;
use crate::manifest::Manifest;
use crate::plan::Planned;
use crate::subprocess;

/// Where the runs' checkpoints come from.
pub struct Supply<'a> {
    pub store: &'a Store,
    prepared_format: Format,
    /// The user's own.
    imported: Option<Ready>,
}

impl<'a> Supply<'a> {
    /// Imports the user's checkpoint, where there is one, and lets it decide size and dtype. A dry run leaves no trace of it.
    ///
    /// # Errors
    ///
    /// If it is not there, or not a checkpoint that can be loaded: no run of it could be made.
    pub fn new(
        store: &'a Store,
        options: &RunOptions,
        manifest: &mut Manifest,
    ) -> anyhow::Result<Supply<'a>> {
        let file = options.checkpoint.as_ref().or(manifest.checkpoint.as_ref());
        let imported = file.map(|file| {
            let mut reading = options.reading.clone();
            reading.layout = reading.layout.or_else(|| manifest.layout.clone());
            reading.key = reading.key.or_else(|| manifest.key.clone());
            let size = manifest
                .sizes
                .first()
                .filter(|_| manifest.checkpoint.is_some());
            let size = options.sizes.first().or(size).copied();
            match options.dry_run {
                true => store.inspect(file, &reading, size),
                false => store.import(file, &reading, size),
            }
        });
        let imported = imported.transpose()?;
        if let Some(ready) = &imported {
            manifest.sizes = vec![ready.size];
            manifest.software_sizes = None;
            manifest.dtypes = vec![ready.dtype];
            if !ready.ignored.is_empty() {
                let (count, first) = (ready.ignored.len(), escaped(&ready.ignored[0]));
                eprintln!(
                    "{count} mask buffers of the checkpoint are no weights and are ignored ({first}, …)"
                );
            }
            if ready.skipped > 0 {
                eprintln!(
                    "{} tensors of the checkpoint are none of the model's and are skipped",
                    ready.skipped
                );
            }
        }
        Ok(Supply {
            store,
            prepared_format: manifest.format,
            imported,
        })
    }

    /// The file or folder of the user's, where the runs load that.
    pub fn imported(&self) -> Option<&Path> {
        self.imported.as_ref().and_then(Ready::imported)
    }

    /// The checkpoint of a run.
    pub fn ready(&self, run: &Planned) -> Ready {
        let prepared = || self.store.prepared(run.size, run.dtype);
        self.imported.clone().unwrap_or_else(prepared)
    }

    /// The format of it that the run reads; `None` where it reads none.
    pub fn format(&self, run: &Planned) -> Option<Format> {
        run.format(self.ready(run).state_dict_format(self.prepared_format))
    }

    /// Bytes that preparing for these runs would write.
    pub fn missing_bytes(&self, runs: &[Planned]) -> u64 {
        let mut seen = HashSet::new();
        let bytes = runs.iter().filter_map(|run| {
            let format = self.format(run)?;
            let ready = self.ready(run);
            let as_it_is = ready.as_it_is(format, run.technique.reads_any());
            let is_needed = run.device.state.is_ok() && as_it_is.is_none();
            let is_new = is_needed && seen.insert((run.size, run.dtype, format));
            is_new.then(|| self.store.missing_bytes(&ready, format))
        });
        bytes.sum()
    }
}

/// The reference logits of a checkpoint, computed once, in a process of its own: it takes the model's memory
/// for a moment, which is not the harness's to keep. It may take as long as a run.
pub fn reference(ready: &Ready, format: Format, limit: Duration) -> Result<PathBuf, String> {
    let path = ready.reference();
    if path.exists() {
        return Ok(path);
    }
    // Another harness may clear away what is half written there, or write it itself.
    let _held = ready.hold().map_err(|error| format!("{error:#}"))?;
    if !path.exists() {
        let (checkpoint, reading) = ready.weights(format);
        let mut command = subprocess::own().map_err(|error| error.to_string())?;
        command
            .arg("reference")
            .arg("--checkpoint")
            .arg(checkpoint)
            .args(["--size", &ready.size.to_string()])
            .arg("--to")
            .arg(&path);
        if let Some(layout) = &reading.layout {
            command.arg("--layout").arg(layout);
        }
        if let Some(key) = &reading.key {
            command.arg("--key").arg(key);
        }
        let wrong = |said: &str| {
            format!(
                "the reference logits could not be computed: {}",
                said.trim()
            )
        };
        let answer =
            subprocess::ask(&mut command, limit).map_err(|error| wrong(&format!("{error:#}")))?;
        if !answer.status.success() {
            return Err(wrong(&answer.errors));
        }
    }
    Ok(path)
}

//! What a worker was doing when it died: a small file that it keeps up to date, and that its parent reads where
//! no outcome came. A process that the kernel kills has no other way to tell.

use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::sample::Sample;

/// How far a run had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The device is opened, and the cache brought into its state.
    SetUp,
    /// The load itself.
    Load,
    /// The model is read back, and forward run.
    Verify,
}

/// The last that a worker wrote: at most 4 ms old while it loads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastWords {
    /// How far it had come.
    pub stage: Stage,
    /// What it held last; `None` before the load.
    pub sample: Option<Sample>,
}

impl LastWords {
    /// Reads what a worker left in the file at `path`.
    pub fn read(path: &Path) -> Option<LastWords> {
        let text = std::fs::read(path).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// Longer than any [`LastWords`] as JSON.
const LENGTH: usize = 512;

/// The worker's end of the file.
pub struct Diary {
    file: Mutex<File>,
}

impl Diary {
    /// Opens a file that is there already, which the parent has made; `None` where it cannot be written.
    pub fn open(path: &Path) -> Option<Diary> {
        let file = OpenOptions::new().write(true).open(path).ok()?;
        Some(Diary {
            file: Mutex::new(file),
        })
    }

    /// Writes what is done now over what was written before. In one write, padded to one length, so that what is read is never half. A full disk is no reason to
    /// end a run.
    pub fn write(&self, words: &LastWords) {
        let mut page = [b' '; LENGTH];
        if serde_json::to_writer(&mut page[..], words).is_ok()
            && let Ok(mut file) = self.file.lock()
        {
            let _ = file.rewind().and_then(|()| file.write_all(&page));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Phase;

    #[test]
    fn the_last_that_was_written_is_read_whole_also_where_it_is_shorter() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(
            LastWords::read(file.path()).is_none(),
            "nothing is said yet"
        );
        let diary = Diary::open(file.path()).unwrap();
        let longest = LastWords {
            stage: Stage::Load,
            sample: Some(Sample {
                time_seconds: 1.0 / 3.0,
                phase: Phase::Materialise,
                host_heap_bytes: Some(u64::MAX),
                host_anon_bytes: u64::MAX,
                host_file_bytes: u64::MAX,
                device_in_use_bytes: Some(u64::MAX),
                device_reserved_bytes: Some(u64::MAX),
            }),
        };
        diary.write(&longest);
        let read = LastWords::read(file.path()).unwrap();
        assert_eq!(read.sample, longest.sample);
        let shorter = LastWords {
            stage: Stage::Verify,
            sample: None,
        };
        diary.write(&shorter);
        let read = LastWords::read(file.path()).unwrap();
        assert_eq!((read.stage, read.sample), (Stage::Verify, None));
    }
}

//! A time limit, and Ctrl-C, for what is done in this very process.

use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::exit::Ended;
use crate::interrupt;

/// Work that looks whether it is to end does so within this time; what does not look is ended from outside.
const GRACE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(50);

/// When the work is to end.
pub struct Deadline {
    end: Instant,
    seconds: u64,
    /// A file is being written, which is not left half done.
    writing: Arc<AtomicBool>,
}

impl Deadline {
    /// So many seconds from now, or at an interrupt. Behind that, the program ends even where the work does not look.
    pub fn start(seconds: u64) -> anyhow::Result<Deadline> {
        interrupt::watch()?;
        let deadline = Deadline {
            end: Instant::now() + Duration::from_secs(seconds),
            seconds,
            writing: Arc::default(),
        };
        let (end, writing) = (deadline.end, Arc::clone(&deadline.writing));
        let watch = std::thread::Builder::new().spawn(move || {
            let mut since = None;
            loop {
                std::thread::sleep(POLL);
                if !reached(end) {
                    continue;
                }
                let since = *since.get_or_insert_with(Instant::now);
                if since.elapsed() >= GRACE && !writing.load(Relaxed) {
                    let error = why(seconds);
                    eprintln!("error: {error}");
                    exit(i32::from(error.code()));
                }
            }
        });
        watch.context("there is no thread to be had that would watch the time")?;
        Ok(deadline)
    }

    /// Whether the work is to end now.
    pub fn is_reached(&self) -> bool {
        reached(self.end)
    }

    /// From here on a file is written, by what looks at [`Deadline::is_reached`].
    pub fn writing(&self) {
        self.writing.store(true, Relaxed);
    }

    /// What to tell of work that ended with an error: why it was to end, where it was.
    pub fn or(&self, error: anyhow::Error) -> anyhow::Error {
        match self.is_reached() {
            true => self.why().into(),
            false => error,
        }
    }

    /// Why the work was to end.
    pub fn why(&self) -> Ended {
        why(self.seconds)
    }
}

fn reached(end: Instant) -> bool {
    interrupt::requested() || Instant::now() >= end
}

fn why(seconds: u64) -> Ended {
    match interrupt::requested() {
        true => Ended::Stopped,
        false => Ended::TimeUp { seconds },
    }
}

//! Exit codes, and how an error is told.

use std::process::ExitCode;

/// Why the program ended without an unexpected error, but not with success either.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Exit code 2, clap's own for a wrong command line.
    #[error("{0}")]
    Usage(String),
    /// Exit code 3: everything was recorded, and some runs did not end well.
    #[error("{bad} of {all} runs did not end ok: see the column `reason` of {records}")]
    RunsFailed {
        bad: usize,
        all: usize,
        records: String,
    },
    /// Exit code 130, the shells' own for Ctrl-C.
    #[error("interrupted: what was recorded stays; go on with `{resume}`")]
    Interrupted { resume: String },
}

impl Ended {
    fn code(&self) -> u8 {
        match self {
            Ended::Usage(_) => 2,
            Ended::RunsFailed { .. } => 3,
            Ended::Interrupted { .. } => 130,
        }
    }
}

/// For `--help`.
pub const CODES: &str = "Exit codes:
  0    everything asked for was done, and every run ended ok or was skipped with its reason
  1    an unexpected error: the disk, a file that cannot be read
  2    the command line, the manifest or a name in it is wrong; nothing was run
  3    everything was recorded, and some runs failed, ran out of memory or of time
  130  interrupted; what was recorded stays, and --resume goes on from it";

/// Prints an error, and chooses the exit code.
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(error.downcast_ref::<Ended>().map_or(1, Ended::code))
        }
    }
}

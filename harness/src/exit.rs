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
    /// Exit code 4: every run ended well, and what was claimed of them is not so.
    #[error("{broken} claims or memory contracts do not hold: see {report}")]
    ClaimsBroken { broken: usize, report: String },
    /// Exit code 4: what was asked for cannot be had.
    #[error("{0}")]
    NothingFits(String),
    /// Exit code 5: a comparison found what got worse.
    #[error("worse than before: memory of {memory} configurations, load time of {time}")]
    Regressed { memory: usize, time: usize },
    /// Exit code 130, the shells' own for Ctrl-C.
    #[error("interrupted: what was recorded stays; go on with `{resume}`")]
    Interrupted { resume: String },
}

impl Ended {
    fn code(&self) -> u8 {
        match self {
            Ended::Usage(_) => 2,
            Ended::RunsFailed { .. } => 3,
            Ended::ClaimsBroken { .. } | Ended::NothingFits(_) => 4,
            Ended::Regressed { .. } => 5,
            Ended::Interrupted { .. } => 130,
        }
    }
}

/// For `--help`.
pub const CODES: &str = "Exit codes:
  0    everything asked for was done, and every run ended ok or was skipped with its reason
  1    an unexpected error: the disk, a file that cannot be read, a folder that another harness holds
  2    the command line, the manifest or a name in it is wrong; nothing was run
  3    everything was recorded, and some runs failed, or ran out of memory or of time without a host cap
  4    every run ended well, and a claim of the manifest or a memory contract does not hold; advise: nothing fits
  5    compare: a peak grew beyond the tolerance, a load takes longer, or a run no longer ends well
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

/// Ends the program without a word where what it prints is read no further, as by `head`. (The signal that says so is off in
/// Rust's programs, and stays so: a command that is talked to may go away, too.)
pub fn quietly_when_nobody_reads() {
    let otherwise = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // What `println!` panics with.
        let message = panic.payload_as_str().unwrap_or_default();
        if message.starts_with("failed printing to stdout") {
            std::process::exit(0);
        }
        otherwise(panic);
    }));
}

//! Exit codes, and how an error is told.

use std::process::ExitCode;

use crate::say;

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
    /// Exit code 4, where findings are asked to count as failures.
    #[error("--check: {findings} claims or memory contracts do not hold")]
    Findings { findings: usize },
    /// Exit code 4: what was asked for cannot be had.
    #[error("{0}")]
    NothingFits(String),
    /// Exit code 1: what is committed is not what the recorded rows say.
    #[error("{0}")]
    Stale(String),
    /// Exit code 5: a comparison found what got worse.
    #[error("worse than before: memory of {memory} configurations, load time of {time}")]
    Regressed { memory: usize, time: usize },
    /// Exit code 130, the shells' own for Ctrl-C, where nothing is recorded.
    #[error("interrupted")]
    Stopped,
    /// Exit code 1: what is done in this process took too long.
    #[error("it has not ended within {seconds} s: a higher --timeout gives it more")]
    TimeUp { seconds: u64 },
    /// Exit code 130, the shells' own for Ctrl-C.
    #[error("interrupted: what was recorded stays; go on with `{resume}`")]
    Interrupted { resume: String },
}

impl Ended {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Ended::Stale(_) | Ended::TimeUp { .. } => 1,
            Ended::Usage(_) => 2,
            Ended::RunsFailed { .. } => 3,
            Ended::Findings { .. } | Ended::NothingFits(_) => 4,
            Ended::Regressed { .. } => 5,
            Ended::Interrupted { .. } | Ended::Stopped => 130,
        }
    }
}

/// For `--help`.
pub const CODES: &str = "Exit codes:
  0    everything asked for was done and recorded; that a claim does not hold is a finding, and so is a spent time budget
  1    an unexpected error: the disk, a file that cannot be read, a folder that another harness holds; generate, finetune: a
       number that is not finite, or the time is up; regenerate --check: a generated file is stale, or a link leads nowhere
  2    the command line, the manifest or a name in it is wrong; nothing was run
  3    everything was recorded, and some runs failed, or ran out of memory or of time without a host cap
  4    run --check, minmem --check: a claim or a memory contract does not hold; advise: nothing fits
  5    compare: a peak grew beyond the tolerance, a load takes longer, or a run no longer ends well
  130  interrupted; what was recorded stays, and --resume goes on from it";

/// What names are quoted in may be as long as a file wants.
const MOST_LINE_BYTES: usize = 8 << 10;
const MOST_MESSAGE_BYTES: usize = 64 << 10;

/// Prints an error, and chooses the exit code.
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    match result.and_then(|()| say::check()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let message = message(&error);
            // The names of files and of what is in them are anybody's: a terminal is to obey none.
            let lines = message.lines().map(checkpoint::escaped);
            let lines: Vec<String> = lines
                .map(|line| checkpoint::cut(&line, MOST_LINE_BYTES))
                .collect();
            let message = checkpoint::cut(&lines.join("\n"), MOST_MESSAGE_BYTES);
            eprintln!("error: {message}");
            ExitCode::from(error.downcast_ref::<Ended>().map_or(1, Ended::code))
        }
    }
}

/// Tells what is wrong with a command line, or the help that it asks for.
pub fn report_usage(told: &clap::Error) -> ExitCode {
    let code = u8::try_from(told.exit_code()).unwrap_or(2);
    match told.print() {
        Err(error) if code == 0 && error.kind() != std::io::ErrorKind::BrokenPipe => {
            report(Err(error.into()))
        }
        _ => ExitCode::from(code),
    }
}

/// An error and its causes, each once: many types repeat their cause in their own text.
pub fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anyhow::Context;

    use super::*;

    #[test]
    fn what_the_system_answered_is_told_once_with_everything_around_it() {
        let absent = Path::new("/no/such/checkpoint.pth");
        let answer = std::fs::File::open(absent).unwrap_err().to_string();
        let opened = checkpoint::Checkpoint::open(absent);
        let wrapped = || csv::Error::from(std::fs::File::open(absent).unwrap_err());
        let errors = [
            anyhow::Error::from(opened.err().unwrap()),
            anyhow::Error::from(wrapped()).context("runs.csv"),
            std::fs::read(absent).context("outer").unwrap_err(),
            std::fs::read(absent).context(answer.clone()).unwrap_err(),
        ];
        for error in errors {
            let message = message(&error);
            assert_eq!(message.matches(&answer).count(), 1, "{message}");
        }
        let error = anyhow::anyhow!("inner").context("middle").context("outer");
        assert_eq!(message(&error), "outer: middle: inner");
    }

    #[test]
    fn every_code_that_the_program_ends_with_is_documented() {
        let ended = [
            Ended::Usage(String::new()),
            Ended::Stale(String::new()),
            Ended::Stopped,
            Ended::TimeUp { seconds: 1 },
            Ended::Findings { findings: 1 },
            Ended::NothingFits(String::new()),
            Ended::Interrupted {
                resume: String::new(),
            },
        ];
        for ended in ended {
            let code = format!("\n  {:<4}", ended.code());
            assert!(CODES.contains(&code), "{code} is not in --help");
        }
    }
}

//! Starts a worker, waits for it, and turns however it ended into an outcome.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lab::{Outcome, Status};

use crate::interrupt;
use crate::worker::WorkerArgs;

/// Runs workers one after the other.
pub struct Executor {
    program: PathBuf,
    timeout: Duration,
}

impl Executor {
    /// Workers are this very program.
    pub fn new(timeout_seconds: u64) -> std::io::Result<Executor> {
        Ok(Executor {
            program: std::env::current_exe()?,
            timeout: Duration::from_secs(timeout_seconds),
        })
    }

    /// One run in a fresh process. `None` if it was interrupted.
    pub fn execute(&self, args: &WorkerArgs) -> std::io::Result<Option<Outcome>> {
        let mut command = Command::new(&self.program);
        command
            .args(args.to_args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A process group of its own: Ctrl-C on the terminal reaches the harness alone, which then ends
        // the worker and records nothing half.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let ended = wait(&mut child, self.timeout)?;
        let stdout = stdout.join().unwrap_or_default();
        let stderr = stderr.join().unwrap_or_default();
        Ok(match ended {
            Waited::Interrupted => None,
            Waited::TimedOut => {
                let limit = self.timeout.as_secs();
                let reason = format!("took longer than {limit} s and was stopped");
                Some(Outcome::ended(Status::Timeout, reason))
            }
            Waited::Exited(status) => Some(read_outcome(status, &stdout, &stderr)),
        })
    }
}

enum Waited {
    Exited(ExitStatus),
    TimedOut,
    Interrupted,
}

fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Waited> {
    let start = Instant::now();
    loop {
        if interrupt::requested() {
            child.kill()?;
            child.wait()?;
            return Ok(Waited::Interrupted);
        }
        if let Some(status) = child.try_wait()? {
            return Ok(Waited::Exited(status));
        }
        if start.elapsed() > timeout {
            child.kill()?;
            child.wait()?;
            return Ok(Waited::TimedOut);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Reads a pipe to its end in a thread, so that a talkative worker is never blocked.
fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn read_outcome(status: ExitStatus, stdout: &str, stderr: &str) -> Outcome {
    let last_line = stdout.lines().last().unwrap_or_default();
    if let Ok(outcome) = serde_json::from_str(last_line) {
        return outcome;
    }
    // What Rust prints when an allocation fails, before it aborts.
    if let Some(line) = stderr
        .lines()
        .find(|line| line.contains("memory allocation of"))
    {
        return Outcome::ended(Status::Oom, line.trim());
    }
    #[cfg(unix)]
    if std::os::unix::process::ExitStatusExt::signal(&status) == Some(9) {
        let reason = "the kernel killed the worker, most likely because memory ran out";
        return Outcome::ended(Status::Oom, reason);
    }
    let said = stderr.lines().rev().find(|line| !line.trim().is_empty());
    let said = said
        .map(|line| format!(": {}", line.trim()))
        .unwrap_or_default();
    Outcome::ended(
        Status::Failed,
        format!("the worker ended without a result, {status}{said}"),
    )
}

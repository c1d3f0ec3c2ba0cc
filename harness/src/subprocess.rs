//! Programs that are started for an answer: waited for within a limit, and heard into buffers that do not grow.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::bounded::{Listener, TAIL_BYTES};
use crate::interrupt;

const POLL: Duration = Duration::from_millis(5);

/// How waiting for a program ended. Unless it exited, it was ended.
pub enum Waited {
    Exited(ExitStatus),
    TimedOut,
    Interrupted,
}

/// What a program said that has ended by itself.
pub struct Answer {
    pub status: ExitStatus,
    pub output: String,
    pub errors: String,
}

/// Runs a program to its end.
///
/// # Errors
///
/// If it cannot be started, takes longer than `limit`, or somebody asks to stop.
pub fn ask(command: &mut Command, limit: Duration) -> anyhow::Result<Answer> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    own_group(command);
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .spawn()
        .with_context(|| format!("{name}: cannot be started"))?;
    let listeners = Listener::of(child.stdout.take(), TAIL_BYTES)
        .and_then(|output| Ok((output, Listener::of(child.stderr.take(), TAIL_BYTES)?)));
    let (output, errors) = listeners.inspect_err(|_| drop(end(&mut child)))?;
    match wait(&mut child, limit)? {
        Waited::Exited(status) => Ok(Answer {
            status,
            output: output.said(),
            errors: errors.said(),
        }),
        Waited::TimedOut => bail!(
            "{name}: took more than {} s, and was ended",
            limit.as_secs()
        ),
        Waited::Interrupted => bail!("interrupted"),
    }
}

/// A process group of its own: Ctrl-C on the terminal reaches this program alone, which then ends the other.
fn own_group(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
}

/// Waits for a program in its own group; ends it when its time is up, or somebody asks to stop.
pub fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Waited> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Waited::Exited(status));
        }
        let ended = match interrupt::requested() {
            true => Some(Waited::Interrupted),
            false => (start.elapsed() > limit).then_some(Waited::TimedOut),
        };
        if let Some(ended) = ended {
            end(child)?;
            return Ok(ended);
        }
        std::thread::sleep(POLL);
    }
}

/// What the kernel does not end within this time waits for something that may never come.
const GRACE: Duration = Duration::from_secs(5);

/// Ends it, and what it has started in its group.
///
/// # Errors
///
/// If it cannot be ended.
pub fn end(child: &mut Child) -> std::io::Result<()> {
    #[cfg(unix)]
    if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    child.kill()?;
    let deadline = Instant::now() + GRACE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            let reason = format!(
                "process {} cannot be ended: it waits in the kernel, most likely for a file system that does not answer",
                child.id()
            );
            return Err(std::io::Error::other(reason));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Says to a process which one has started it.
const PARENT: &str = "FEATHERWEIGHT_PARENT";

/// This program again, in a group of its own, to be told that it is to [end with this process](end_with_parent).
///
/// # Errors
///
/// If nobody tells where it is.
pub fn own() -> std::io::Result<Command> {
    let mut command = Command::new(crate::program::own()?);
    command.env(PARENT, std::process::id().to_string());
    own_group(&mut command);
    Ok(command)
}

/// Has the kernel end this process with the one that started it, so that nothing goes on that nobody waits for.
pub fn end_with_parent() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        // It may have ended before that was said.
        let told = std::env::var(PARENT).ok();
        let told = told.and_then(|told| told.parse::<i32>().ok());
        let parent = getppid().map(|parent| parent.as_raw_nonzero().get());
        if told.is_some() && told != parent {
            std::process::exit(143);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_program_says_is_heard_with_how_it_ended() {
        let limit = Duration::from_secs(60);
        let answer = ask(&mut shell("echo said; echo wrong >&2; exit 3"), limit).unwrap();
        assert_eq!((&*answer.output, &*answer.errors), ("said\n", "wrong\n"));
        assert_eq!(answer.status.code(), Some(3));
    }

    #[test]
    fn a_program_without_end_is_ended_with_what_it_started_and_told() {
        let marked = "sleep 9876 & sleep 9876";
        let error = ask(&mut shell(marked), Duration::from_millis(200))
            .err()
            .unwrap();
        assert_eq!(error.to_string(), "sh: took more than 0 s, and was ended");
        let left = Command::new("pgrep").args(["-f", "^sleep 9876"]).output();
        assert!(
            left.is_ok_and(|left| left.stdout.is_empty()),
            "sleep is still there"
        );
    }
}

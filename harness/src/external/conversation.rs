//! Lines to and from a command.

use std::io::{BufReader, Write};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use lab::Status;
use serde::Deserialize;

use crate::bounded::{self, Listener};
use crate::interrupt;
use crate::tree::{Pipes, Tree};

/// What a command says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    Ready,
    Loaded,
    Done,
    Failed,
}

#[derive(Debug, Deserialize)]
pub struct Message {
    event: Event,
    #[serde(default)]
    pub framework: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    pub device_in_use_peak_bytes: Option<u64>,
}

/// Why a conversation came to its end before everything was said.
pub enum Ended {
    Interrupted,
    TimedOut,
    /// The command is gone.
    Gone,
    /// It said something else than was expected.
    Misunderstood(String),
    /// It, or the harness, says why it cannot be.
    Refused(Status, String),
}

/// A command that runs. It is ended when this is dropped, with all that it has started.
pub struct Conversation {
    tree: Tree,
    to: ChildStdin,
    from: Receiver<(Instant, std::io::Result<String>)>,
    errors: Option<Listener>,
    deadline: Instant,
    timeout: Duration,
}

impl Conversation {
    /// Starts the command; `admit` is called with its number before it is told anything.
    pub fn begin(
        command: &[String],
        timeout: Duration,
        admit: impl FnOnce(u32) -> std::io::Result<()>,
    ) -> std::io::Result<Conversation> {
        let mut tree = Tree::start(
            command,
            Pipes {
                input: Stdio::piped(),
                output: Stdio::piped(),
                errors: Stdio::piped(),
            },
        )?;
        let (Some(to), Some(out), Some(err)) = tree.take_pipes() else {
            return Err(std::io::Error::other("its pipes are not there"));
        };
        // A command that says more than anybody listens to waits.
        let (heard, from) = sync_channel(16);
        std::thread::Builder::new().spawn(move || {
            let mut out = BufReader::new(out);
            while let Some(line) = bounded::line(&mut out) {
                let is_last = line.is_err();
                if heard.send((Instant::now(), line)).is_err() || is_last {
                    return;
                }
            }
        })?;
        let errors = Listener::of(Some(err), bounded::TAIL_BYTES)?;
        let conversation = Conversation {
            tree,
            to,
            from,
            errors: Some(errors),
            deadline: Instant::now() + timeout,
            timeout,
        };
        admit(conversation.pid())?;
        Ok(conversation)
    }

    pub fn pid(&self) -> u32 {
        self.tree.pid()
    }

    /// Says a line, and when.
    pub fn say(&mut self, line: &str) -> Result<Instant, Ended> {
        let now = Instant::now();
        let said = writeln!(self.to, "{line}").and_then(|()| self.to.flush());
        said.map(|()| now).map_err(|_| Ended::Gone)
    }

    /// Waits for what is expected, and says when it came.
    pub fn hear(&mut self, expected: Event) -> Result<(Instant, Message), Ended> {
        let mut is_gone = false;
        loop {
            if interrupt::requested() {
                return Err(Ended::Interrupted);
            }
            if is_gone {
                // What it said at last may still be on its way.
                return match self.from.recv_timeout(Duration::from_millis(100)) {
                    Ok((at, Ok(line))) => understand(&line, expected).map(|message| (at, message)),
                    _ => Err(Ended::Gone),
                };
            }
            if Instant::now() > self.deadline {
                return Err(Ended::TimedOut);
            }
            match self.from.recv_timeout(Duration::from_millis(10)) {
                // Its end is its end, whoever still holds its pipes.
                Err(RecvTimeoutError::Timeout) => match self.tree.try_wait() {
                    Ok(None) => {}
                    _ => is_gone = true,
                },
                Err(RecvTimeoutError::Disconnected) => return Err(Ended::Gone),
                Ok((at, Ok(line))) => {
                    return understand(&line, expected).map(|message| (at, message));
                }
                Ok((_, Err(error))) => {
                    return Err(Ended::Misunderstood(format!("the command said {error}")));
                }
            }
        }
    }

    /// How the command ended: it is given a second for that, and then ended.
    fn end(&mut self) -> std::io::Result<std::process::ExitStatus> {
        for _ in 0..100 {
            if let Some(status) = self.tree.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.tree.end()
    }

    /// The status of a run that ended so, and why, for a person.
    pub fn why(&mut self, ended: Ended, oom_kills: u64) -> (Status, String) {
        match ended {
            Ended::Interrupted => (Status::Failed, "interrupted".to_owned()),
            Ended::TimedOut => {
                let seconds = self.timeout.as_secs();
                (
                    Status::Timeout,
                    format!("took longer than {seconds} s and was stopped"),
                )
            }
            Ended::Misunderstood(what) => (Status::Failed, what),
            Ended::Refused(status, reason) => (status, reason),
            Ended::Gone => {
                let status = self.end();
                let status =
                    status.map_or_else(|error| error.to_string(), |status| status.to_string());
                if oom_kills > 0 {
                    return (
                        Status::Oom,
                        "killed by the kernel when memory ran out".to_owned(),
                    );
                }
                let said = self.errors.take().map_or(String::new(), Listener::said);
                let last = said.lines().rev().find(|line| !line.trim().is_empty());
                let last = last.map_or(String::new(), |line| format!(": {}", line.trim()));
                (
                    Status::Failed,
                    format!(
                        "the command ended with {status}{}",
                        checkpoint::cut(&last, 4096)
                    ),
                )
            }
        }
    }
}

/// Whether a line is something that a command may say.
pub fn is_understood(line: &str) -> bool {
    understand(line, Event::Loaded).is_ok()
}

fn understand(line: &str, expected: Event) -> Result<Message, Ended> {
    let message: Message = serde_json::from_str(line).map_err(|error| {
        let start: String = line.chars().take(80).collect();
        Ended::Misunderstood(format!(
            "the command said `{start}`, which is no event: {error}"
        ))
    })?;
    match message.event {
        event if event == expected => Ok(message),
        Event::Failed => {
            let reason = message
                .reason
                .unwrap_or_else(|| "it does not say why".to_owned());
            Err(Ended::Refused(Status::Failed, reason))
        }
        other => Err(Ended::Misunderstood(format!(
            "the command said {other:?}, where {expected:?} was expected"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_or_told_to_a_person() {
        let ready = r#"{"event": "ready", "framework": "pytorch 2"}"#;
        let message = understand(ready, Event::Ready).ok().unwrap();
        assert_eq!(message.framework.as_deref(), Some("pytorch 2"));
        let told = |line: &str| match understand(line, Event::Loaded) {
            Err(Ended::Refused(_, reason) | Ended::Misunderstood(reason)) => reason,
            _ => String::new(),
        };
        assert_eq!(
            told(r#"{"event": "failed", "reason": "no memory"}"#),
            "no memory"
        );
        assert!(told(ready).contains("Ready"));
        assert!(told("Traceback").contains("`Traceback`, which is no event"));
    }
}

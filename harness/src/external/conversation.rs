//! Lines to and from a command.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lab::Status;
use serde::Deserialize;

use crate::{checkout, interrupt};

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

/// A command that runs. It is ended when this is dropped.
pub struct Conversation {
    child: Child,
    to: ChildStdin,
    from: Receiver<(Instant, String)>,
    errors: Option<JoinHandle<String>>,
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
        let [program, arguments @ ..] = command else {
            return Err(std::io::Error::other("the command is empty"));
        };
        let mut command = command_of(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let to = child.stdin.take().expect("it was piped");
        let out = child.stdout.take().expect("it was piped");
        let mut err = child.stderr.take().expect("it was piped");
        let (heard, from) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if heard.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = err.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let conversation = Conversation {
            child,
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
        self.child.id()
    }

    /// Says a line, and when.
    pub fn say(&mut self, line: &str) -> Result<Instant, Ended> {
        let now = Instant::now();
        let said = writeln!(self.to, "{line}").and_then(|()| self.to.flush());
        said.map(|()| now).map_err(|_| Ended::Gone)
    }

    /// Waits for what is expected, and says when it came.
    pub fn hear(&mut self, expected: Event) -> Result<(Instant, Message), Ended> {
        loop {
            if interrupt::requested() {
                return Err(Ended::Interrupted);
            }
            if Instant::now() > self.deadline {
                return Err(Ended::TimedOut);
            }
            match self.from.recv_timeout(Duration::from_millis(10)) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Ended::Gone),
                Ok((at, line)) => return understand(&line, expected).map(|message| (at, message)),
            }
        }
    }

    /// How the command ended: it is given a second for that, and then ended.
    fn end(&mut self) -> std::io::Result<std::process::ExitStatus> {
        for _ in 0..100 {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill()?;
        self.child.wait()
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
                let said = self.errors.take().and_then(|errors| errors.join().ok());
                let said = said.unwrap_or_default();
                let last = said.lines().rev().find(|line| !line.trim().is_empty());
                let last = last.map_or(String::new(), |line| format!(": {}", line.trim()));
                (
                    Status::Failed,
                    format!("the command ended with {status}{last}"),
                )
            }
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command of a manifest, to be run from the checkout's root: there are the folders that the manifests of the house name.
/// Outside a checkout it is run from the current folder.
pub fn command_of(program: &str) -> Command {
    let Some(root) = checkout::root() else {
        return Command::new(program);
    };
    // A program's relative path would be looked up in the one folder or the other, as the platform likes.
    let is_path = Path::new(program).components().count() > 1;
    let mut command = match is_path {
        true => Command::new(root.join(program)),
        false => Command::new(program),
    };
    command.current_dir(root);
    command
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

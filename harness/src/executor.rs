//! Starts a worker, waits for it, and turns however it ended into an outcome.

use std::process::Stdio;
use std::time::Duration;

use lab::{Outcome, Status};
use meter::{Cgroup, HostCaps, LastWords, machine_oom_kills};

use crate::autopsy::Remains;
use crate::bounded::{self, Listener};
use crate::external::{Answer, External, Request};
use crate::subprocess::{self, Waited, wait};
use crate::worker::Specification;
use crate::{machine, scratch};

/// An outcome is a line of less: its timeline has a sample for each few milliseconds.
const OUTCOME_BYTES: usize = 256 << 20;

/// Runs workers one after the other.
pub struct Executor {
    timeout: Duration,
    caps: HostCaps,
}

impl Executor {
    /// Workers are this very program.
    pub fn new(timeout_seconds: u64, caps: HostCaps) -> std::io::Result<Executor> {
        Ok(Executor {
            timeout: Duration::from_secs(timeout_seconds),
            caps,
        })
    }

    /// What enforces host caps.
    pub fn caps(&self) -> &HostCaps {
        &self.caps
    }

    /// A cgroup for one run, where there are any; why the run cannot be made under its cap.
    fn cgroup(&self, host_cap: Option<u64>) -> Result<Option<Cgroup>, String> {
        if let (HostCaps::Unavailable(reason), Some(_)) = (&self.caps, host_cap) {
            return Err((*reason).to_owned());
        }
        match (self.caps.new_cgroup(), host_cap) {
            (Ok(cgroup), _) => Ok(cgroup),
            // Without a cap it is only one instrument less.
            (Err(_), None) => Ok(None),
            (Err(error), Some(_)) => Err(format!(
                "no cgroup can be made to enforce the host cap: {error}"
            )),
        }
    }

    /// One run of an external command. `None` if it was interrupted.
    pub fn ask(
        &self,
        external: &External,
        request: &Request<'_>,
    ) -> std::io::Result<Option<Answer>> {
        match self.cgroup(request.cap_bytes) {
            Ok(cgroup) => external.run(request, cgroup.as_ref()),
            Err(reason) => Ok(Some(Answer::ended(Status::Skipped, reason))),
        }
    }

    /// One run in a fresh process, in a cgroup of its own where there are any. `None` if it was interrupted.
    pub fn execute(&self, run: Specification) -> std::io::Result<Option<Answer>> {
        let framework = Some(machine::framework());
        let outcome = self.outcome(run)?;
        Ok(outcome.map(|outcome| Answer { outcome, framework }))
    }

    /// As [`Executor::execute`], without what loaded.
    pub fn outcome(&self, run: Specification) -> std::io::Result<Option<Outcome>> {
        let cgroup = match self.cgroup(run.host_cap_bytes) {
            Ok(cgroup) => cgroup,
            Err(reason) => return Ok(Some(Outcome::ended(Status::Skipped, reason))),
        };
        let last_words = scratch::file().ok();
        let last_words_path = last_words.as_ref().map(|file| file.path().to_owned());
        let run = Specification {
            cgroup: cgroup.as_ref().map(|cgroup| cgroup.folder().to_owned()),
            last_words: last_words_path.clone(),
            ..run
        };
        let mut command = subprocess::own()?;
        command
            .arg("worker")
            .arg(serde_json::to_string(&run)?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let oom_kills_before = machine_oom_kills();
        let mut child = command.spawn()?;
        let listeners = Listener::of(child.stdout.take(), OUTCOME_BYTES)
            .and_then(|out| Ok((out, Listener::of(child.stderr.take(), bounded::TAIL_BYTES)?)));
        let (stdout, stderr) = listeners.inspect_err(|_| drop(subprocess::end(&mut child)))?;
        let ended = wait(&mut child, self.timeout)?;
        let (stdout, stderr) = (stdout.said(), stderr.said());
        let status = match ended {
            Waited::Interrupted => return Ok(None),
            Waited::TimedOut => None,
            Waited::Exited(status) => Some(status),
        };
        let last_line = stdout.lines().last().unwrap_or_default();
        if let (Some(_), Ok(outcome)) = (status, serde_json::from_str(last_line)) {
            return Ok(Some(outcome));
        }
        let remains = Remains {
            status,
            timeout: self.timeout,
            stderr,
            last_words: last_words_path.as_deref().and_then(LastWords::read),
            oom_kills: match &cgroup {
                Some(cgroup) => cgroup.oom_kills(),
                None => machine_oom_kills()
                    .zip(oom_kills_before)
                    .map(|(now, before)| now.saturating_sub(before)),
            },
            cap: run.host_cap_bytes.zip(self.caps.mechanism()),
        };
        Ok(Some(remains.examine()))
    }
}

//! Why a worker ended without an outcome: from how it ended, what it said, what it wrote down last, and what the
//! kernel counted.

use std::process::ExitStatus;
use std::time::Duration;

use lab::{Outcome, Status};
use meter::{CapMechanism, LastWords, Stage};

use crate::units;

/// What a worker left behind.
pub struct Remains {
    /// `None` where it was stopped because it took too long.
    pub status: Option<ExitStatus>,
    pub timeout: Duration,
    pub stderr: String,
    pub last_words: Option<LastWords>,
    /// By the run's own cgroup, where it had one; of the whole machine meanwhile, where not.
    pub oom_kills: Option<u64>,
    pub cap: Option<(u64, CapMechanism)>,
}

impl Remains {
    /// The outcome of the run.
    pub fn examine(&self) -> Outcome {
        let doing = self.doing();
        let Some(status) = self.status else {
            let seconds = self.timeout.as_secs();
            let reason = format!("took longer than {seconds} s and was stopped{doing}");
            return self.outcome(Status::Timeout, reason);
        };
        // What Rust prints when an allocation fails, before it aborts.
        let mut lines = self.stderr.lines();
        if let Some(line) = lines.find(|line| line.contains("memory allocation of")) {
            let reason = format!("{}{}{doing}", self.over_cap(), line.trim());
            return self.outcome(Status::Oom, reason);
        }
        match (signal(status), self.oom_kills, self.cap) {
            (Some(BUS_ERROR), ..) => {
                let said = self
                    .stderr
                    .lines()
                    .find(|line| line.contains("the page of "));
                let why = said
                    .unwrap_or("a page of a mapped file was not there")
                    .trim();
                let reason = format!("the worker ended without a result, {status}{doing}: {why}");
                self.outcome(Status::Failed, reason)
            }
            (Some(9), Some(1..), Some(_)) => {
                let reason = format!("{}killed by the kernel{doing}", self.over_cap());
                self.outcome(Status::Oom, reason)
            }
            (Some(9), Some(1..), None) => {
                let reason = format!("the machine ran out of memory: killed by the kernel{doing}");
                self.outcome(Status::Oom, reason)
            }
            (Some(9), Some(0), _) => {
                let reason = format!("killed from outside, and not for its memory{doing}");
                self.outcome(Status::Failed, reason)
            }
            (Some(9), None, _) => {
                let reason = format!(
                    "killed by the kernel or by somebody: most likely memory ran out{doing}"
                );
                self.outcome(Status::Oom, reason)
            }
            // Libraries in C do not always look whether they were given memory.
            (Some(signal), _, Some((_, CapMechanism::DataLimit))) => {
                let reason = format!(
                    "{}crashed with signal {signal} when memory was refused{doing}",
                    self.over_cap()
                );
                self.outcome(Status::Oom, reason)
            }
            _ => {
                let said = self
                    .stderr
                    .lines()
                    .rev()
                    .find(|line| !line.trim().is_empty());
                let said = said.map(|line| format!(": {}", line.trim()));
                let said = said.unwrap_or_default();
                let reason = format!("the worker ended without a result, {status}{doing}{said}");
                self.outcome(Status::Failed, reason)
            }
        }
    }

    fn outcome(&self, status: Status, reason: String) -> Outcome {
        let sample = self.last_words.as_ref().and_then(|words| words.sample);
        let mut outcome = Outcome::ended(status, reason);
        outcome.measures.host_peak_phase = sample.map(|sample| sample.phase.to_string());
        outcome
    }

    /// `over its host cap of 512 MiB (cgroup-v1): `
    fn over_cap(&self) -> String {
        match self.cap {
            Some((bytes, mechanism)) => {
                let bytes = units::bytes(bytes);
                format!("over its host cap of {bytes} ({mechanism}): ")
            }
            None => String::new(),
        }
    }

    /// ` in phase read, with 1.51 GiB of heap asked for and 512 MiB of anonymous memory touched`
    fn doing(&self) -> String {
        let Some(words) = &self.last_words else {
            return String::new();
        };
        match (words.stage, &words.sample) {
            (Stage::SetUp, _) => " while it was set up".to_owned(),
            (Stage::Verify, _) => " while the loaded model was verified".to_owned(),
            (Stage::Load, None) => " at the begin of the load".to_owned(),
            (Stage::Load, Some(sample)) => {
                let asked = sample.host_heap_bytes.map(units::bytes);
                let asked = asked.map(|bytes| format!("{bytes} of heap asked for and "));
                let device = sample.device_in_use_bytes.filter(|&bytes| bytes > 0);
                let device =
                    device.map(|bytes| format!(", and {} on the device", units::bytes(bytes)));
                format!(
                    " in phase {}, with {}{} of anonymous memory touched{}",
                    sample.phase,
                    asked.unwrap_or_default(),
                    units::bytes(sample.host_anon_bytes),
                    device.unwrap_or_default()
                )
            }
        }
    }
}

/// SIGBUS, of Linux on all but a few processors.
const BUS_ERROR: i32 = 7;

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal(_: ExitStatus) -> Option<i32> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use meter::{Phase, Sample};

    use super::*;

    fn killed(signal: i32) -> Remains {
        Remains {
            status: Some(ExitStatus::from_raw(signal)),
            timeout: Duration::from_secs(7),
            stderr: "llvmpipe: something\n\n".to_owned(),
            last_words: Some(LastWords {
                stage: Stage::Load,
                sample: Some(Sample {
                    time_seconds: 0.5,
                    phase: Phase::Upload,
                    host_heap_bytes: Some(3 << 30),
                    host_anon_bytes: 512 << 20,
                    host_file_bytes: 0,
                    device_in_use_bytes: None,
                    device_reserved_bytes: None,
                }),
            }),
            oom_kills: Some(0),
            cap: None,
        }
    }

    #[test]
    fn a_run_over_its_cap_is_oom_with_the_cap_the_phase_and_what_was_asked_for() {
        let outcome = Remains {
            oom_kills: Some(1),
            cap: Some((512 << 20, CapMechanism::CgroupV1)),
            ..killed(9)
        }
        .examine();
        assert_eq!(outcome.status, Status::Oom);
        assert_eq!(
            outcome.reason.as_deref(),
            Some(
                "over its host cap of 512 MiB (cgroup-v1): killed by the kernel in phase upload, with 3.00 GiB of \
                 heap asked for and 512 MiB of anonymous memory touched"
            )
        );
        assert_eq!(outcome.measures.host_peak_phase.as_deref(), Some("upload"));
        assert_eq!(
            outcome.measures.host_heap_peak_bytes, None,
            "nothing was measured"
        );
    }

    #[test]
    fn a_refused_allocation_is_told_in_rusts_own_words() {
        let outcome = Remains {
            stderr: "memory allocation of 1048576 bytes failed\n".to_owned(),
            oom_kills: None,
            cap: Some((1 << 30, CapMechanism::DataLimit)),
            ..killed(6)
        }
        .examine();
        assert_eq!(outcome.status, Status::Oom);
        let reason = outcome.reason.unwrap();
        assert!(reason.contains(
            "1.00 GiB (rlimit-data): memory allocation of 1048576 bytes failed in phase upload"
        ));
    }

    #[test]
    fn what_was_not_for_memory_is_not_called_so() {
        let outcome = killed(9).examine();
        assert_eq!(outcome.status, Status::Failed);
        assert!(outcome.reason.unwrap().contains("killed from outside"));
        let outcome = killed(7).examine();
        assert_eq!(outcome.status, Status::Failed);
        let reason = outcome.reason.unwrap();
        assert!(
            reason.contains("signal: 7") && reason.contains("a page of a mapped file"),
            "{reason}"
        );
        // Memory that is refused is no reason for that.
        let outcome = Remains {
            stderr:
                "the page of /m at byte 4096 cannot be read: its disk, or its file system, fails\n"
                    .to_owned(),
            cap: Some((1 << 30, CapMechanism::DataLimit)),
            ..killed(7)
        }
        .examine();
        assert_eq!(outcome.status, Status::Failed);
        assert!(
            outcome
                .reason
                .unwrap()
                .ends_with("or its file system, fails")
        );
        let outcome = Remains {
            status: None,
            ..killed(9)
        }
        .examine();
        assert_eq!(outcome.status, Status::Timeout);
        assert!(outcome.reason.unwrap().starts_with("took longer than 7 s"));
    }
}

//! The hidden `guard` command: a program, and whatever it starts. When the program ends, when the guard is told to, or when the
//! harness is gone, all of it is gone: what was moved into other sessions, and what was orphaned, which the kernel gives to the
//! guard. (Linux.)

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, exit};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use clap::Args;
use procfs::process::{ProcState, all_processes};
use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, set_child_subreaper, set_parent_process_death_signal,
    waitpid,
};

/// A program to guard.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// Where to write its number, or why it could not be started
    #[arg(long)]
    pub told: PathBuf,
    /// The harness
    #[arg(long)]
    pub harness: u32,
    /// Program and arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// The program's number, once it runs: it is waited for by who has started it.
static PROGRAM: OnceLock<u32> = OnceLock::new();

/// Runs it, and ends as it ends.
pub fn guard(args: &GuardArgs) -> anyhow::Result<()> {
    set_child_subreaper(Pid::from_raw(1))?;
    ctrlc::set_handler(|| {
        end_descendants(&BTreeSet::new(), PROGRAM.get().copied());
        if PROGRAM.get().is_none() {
            exit(143);
        }
    })?;
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have died before that was said.
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get() as u32);
    if parent != Some(args.harness) {
        exit(143);
    }
    let [program, arguments @ ..] = &args.command[..] else {
        anyhow::bail!("no program is named");
    };
    let started = Command::new(program).args(arguments).spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            std::fs::write(&args.told, format!("{error}\n"))?;
            exit(127);
        }
    };
    let _ = PROGRAM.set(child.id());
    std::fs::write(&args.told, format!("{}\n", child.id()))?;
    let status = child.wait()?;
    end_descendants(&BTreeSet::new(), None);
    end_as(status)
}

/// With the same code, or by the same signal.
fn end_as(status: ExitStatus) -> ! {
    if let Some(code) = status.code() {
        exit(code);
    }
    let number = status.signal().unwrap_or(Signal::KILL.as_raw());
    if let Some(signal) = Signal::from_named_raw(number) {
        // The first may meet a handler of Rust's, which takes itself away.
        for _ in 0..2 {
            let _ = kill_process(rustix::process::getpid(), signal);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    // Those that are noted instead.
    exit(128 + number)
}

/// Ends every process below this one, but those in `spared` and what is below these, and waits until they are gone; `program` is
/// waited for elsewhere. Whether all are gone.
pub fn end_descendants(spared: &BTreeSet<u32>, program: Option<u32>) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let found = descendants(spared);
        for process in &found {
            let Some(pid) = Pid::from_raw(process.pid as i32) else {
                continue;
            };
            let _ = kill_process(pid, Signal::KILL);
            if process.is_own && Some(process.pid) != program {
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
        let is_left = |process: &Descendant| !(process.is_dead && Some(process.pid) == program);
        if !found.iter().any(is_left) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process below this one.
struct Descendant {
    pid: u32,
    /// Whether it is this one's own child.
    is_own: bool,
    /// Whether it has ended, and is to be waited for.
    is_dead: bool,
}

/// The children of this process.
pub fn children() -> BTreeSet<u32> {
    let all = descendants(&BTreeSet::new()).into_iter();
    all.filter(|process| process.is_own)
        .map(|process| process.pid)
        .collect()
}

fn descendants(spared: &BTreeSet<u32>) -> Vec<Descendant> {
    let own = std::process::id();
    let Ok(all) = all_processes() else {
        return Vec::new();
    };
    let all: Vec<(u32, u32, bool)> = all
        .filter_map(|process| process.ok()?.stat().ok())
        .map(|stat| {
            let is_dead = matches!(stat.state(), Ok(ProcState::Zombie | ProcState::Dead));
            (stat.pid as u32, stat.ppid as u32, is_dead)
        })
        .collect();
    let mut below: BTreeSet<u32> = [own].into();
    let mut found = Vec::new();
    loop {
        let before = found.len();
        for &(pid, parent, is_dead) in &all {
            if below.contains(&parent) && !spared.contains(&pid) && below.insert(pid) {
                found.push(Descendant {
                    pid,
                    is_own: parent == own,
                    is_dead,
                });
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

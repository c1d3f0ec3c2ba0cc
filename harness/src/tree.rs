//! A command of a manifest, with everything that it starts. When it is dropped, all of that is gone.
//!
//! ```text
//!  harness ──▶ guard ──▶ command ──▶ whatever it starts
//! ```
//!
//! The guard is this program again: see `guard.rs`. It is there on Linux; elsewhere the command alone is ended.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::{checkout, scratch};

/// A guard ends what it guards within this time.
const GRACE: Duration = Duration::from_secs(12);
const POLL: Duration = Duration::from_millis(5);

/// See the module's documentation.
pub struct Tree {
    child: Child,
    command: u32,
    /// What was running below the harness before.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code))]
    before: BTreeSet<u32>,
    is_ended: bool,
}

/// Where what a command reads and writes goes.
pub struct Pipes {
    pub input: Stdio,
    pub output: Stdio,
    pub errors: Stdio,
}

impl Tree {
    /// Starts a command, from the checkout's root where there is one.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(command: &[String], pipes: Pipes) -> io::Result<Tree> {
        let [program, arguments @ ..] = command else {
            return Err(io::Error::other("the command is empty"));
        };
        // Nobody would see what it starts.
        #[cfg(target_os = "linux")]
        if !Path::new("/proc/self/stat").exists() {
            return Err(io::Error::other(
                "there is no /proc, without which what a command starts cannot be ended",
            ));
        }
        let root = checkout::root();
        let program = program_in(root.as_deref(), program);
        let told = scratch::file()?;
        let mut command = start_of(&program, arguments, told.path())?;
        command
            .stdin(pipes.input)
            .stdout(pipes.output)
            .stderr(pipes.errors);
        if let Some(root) = root {
            command.current_dir(root);
        }
        // A process group of its own: Ctrl-C on the terminal reaches the harness alone.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let before = before();
        let child = command.spawn()?;
        let mut tree = Tree {
            command: child.id(),
            child,
            before,
            is_ended: false,
        };
        tree.hear_number(told.path())?;
        Ok(tree)
    }

    /// Waits until the guard says what the command's number is, or why there is none.
    #[cfg(target_os = "linux")]
    fn hear_number(&mut self, told: &Path) -> io::Result<()> {
        let deadline = Instant::now() + GRACE;
        loop {
            let said = std::fs::read_to_string(told)?;
            if let Some(said) = said.strip_suffix('\n') {
                self.command = said.parse().map_err(|_| io::Error::other(said))?;
                return Ok(());
            }
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(io::Error::other("its guard did not start it"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn hear_number(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    /// The command's number.
    pub fn pid(&self) -> u32 {
        self.command
    }

    /// What was piped of it, once.
    pub fn take_pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        let child = &mut self.child;
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    }

    /// How the command ended, where it has: all that it started is gone then, too.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() && !self.is_ended {
            self.is_ended = true;
            // What a guard that was killed has left is the harness's own now.
            #[cfg(target_os = "linux")]
            crate::guard::end_descendants(&self.before, None);
        }
        Ok(status)
    }

    /// Ends all of it, and waits until it is gone.
    pub fn end(&mut self) -> io::Result<ExitStatus> {
        if self.is_ended {
            return self.child.wait();
        }
        #[cfg(target_os = "linux")]
        if let Some(guard) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(guard, rustix::process::Signal::TERM);
            let deadline = Instant::now() + GRACE;
            while Instant::now() < deadline {
                if let Some(status) = self.try_wait()? {
                    return Ok(status);
                }
                std::thread::sleep(POLL);
            }
        }
        self.child.kill()?;
        self.child.wait()?;
        self.try_wait()?
            .ok_or_else(|| io::Error::other("its guard is still there"))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// A program's relative path would be looked up in the one folder or the other, as the platform likes.
fn program_in(root: Option<&Path>, program: &str) -> PathBuf {
    let is_path = Path::new(program).components().count() > 1;
    match root.filter(|_| is_path) {
        Some(root) => root.join(program),
        None => PathBuf::from(program),
    }
}

#[cfg(target_os = "linux")]
fn start_of(program: &Path, arguments: &[String], told: &Path) -> io::Result<Command> {
    let mut guard = Command::new(crate::program::own()?);
    guard
        .args([
            "guard",
            "--harness",
            &std::process::id().to_string(),
            "--told",
        ])
        .arg(told)
        .arg("--")
        .arg(program)
        .args(arguments);
    Ok(guard)
}

#[cfg(not(target_os = "linux"))]
fn start_of(program: &Path, arguments: &[String], _: &Path) -> io::Result<Command> {
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// The harness is given what a guard that dies leaves; what it has started itself is no part of that.
#[cfg(target_os = "linux")]
fn before() -> BTreeSet<u32> {
    let _ = rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1));
    crate::guard::children()
}

#[cfg(not(target_os = "linux"))]
fn before() -> BTreeSet<u32> {
    BTreeSet::new()
}

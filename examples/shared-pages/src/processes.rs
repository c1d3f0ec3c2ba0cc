//! Processes that are kept in step: each prints a word when it has done a step, and waits for a line.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// One of them, as the first process sees it.
pub struct Loader {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Loader {
    /// Starts this program again.
    pub fn start(checkpoint: &Path, expected: f32) -> Result<Loader> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(checkpoint)
            .args(["--expect", &expected.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("stdout")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Loader { child, lines })
    }

    /// Prints what it prints, until it has done the step: what it says behind that word.
    pub fn wait_for(&mut self, step: &str) -> Result<String> {
        for line in &mut self.lines {
            let line = line?;
            match line.strip_prefix(step) {
                Some(said) => return Ok(said.trim().to_owned()),
                None => println!("{line}"),
            }
        }
        bail!("a process ended before it had {step}")
    }

    pub fn go_on(&mut self) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("stdin")?;
        Ok(writeln!(stdin)?)
    }

    pub fn finish(mut self) -> Result<()> {
        ensure!(self.child.wait()?.success(), "a process failed");
        Ok(())
    }
}

/// In one of them: says that it has done the step, and waits until the others have, too.
pub fn say_and_wait(step: &str) -> Result<()> {
    println!("{step}");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

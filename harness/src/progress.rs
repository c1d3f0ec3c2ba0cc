//! What a person sees of a plan in execution: which run of how many, how each ended, and when all are through.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::estimate::{Estimate, about_left, rough_seconds};
use crate::machine;
use crate::manifest::{HostCaps, Manifest};
use crate::plan::Planned;

/// A bar where there is a terminal, and a line for each run that ended.
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
    estimate: Estimate,
    budget: Option<Duration>,
    /// How many of the planned ones are done with.
    done: Cell<usize>,
    /// How many are done with when a run has ended: a search makes several for one that is planned.
    done_by_a_run: usize,
}

impl Progress {
    pub fn begin(runs: &[&Planned], manifest: &Manifest) -> Progress {
        let bar = ProgressBar::new(runs.len() as u64);
        let style = "{bar:24} {elapsed_precise} {wide_msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        let available = machine::available_memory_bytes();
        let guesses = runs.iter().map(|run| match run.obstacle(available) {
            Some(_) => 0.0,
            None => rough_seconds(run),
        });
        Progress {
            bar,
            start: Instant::now(),
            estimate: Estimate::new(guesses.collect()),
            budget: manifest.limits.budget_seconds.map(Duration::from_secs),
            done: Cell::new(0),
            done_by_a_run: usize::from(manifest.host_caps != HostCaps::Smallest),
        }
    }

    /// Whether the manifest's time budget allows no further run.
    pub fn is_budget_spent(&self) -> bool {
        self.budget_left() == Some(Duration::ZERO)
    }

    fn budget_left(&self) -> Option<Duration> {
        let budget = self.budget?;
        Some(budget.saturating_sub(self.start.elapsed()))
    }

    /// A run begins.
    pub fn running(&self, label: &str) {
        let left = self.left(self.done.get());
        self.bar
            .set_message(format!("{} {label}{left}", self.place()));
    }

    /// It ended so.
    pub fn ended(&self, label: &str, how: &str) {
        let left = self.left(self.done.get() + self.done_by_a_run);
        let line = format!("{} {label:<52} {how}{left}", self.place());
        match self.bar.is_hidden() {
            true => eprintln!("{line}"),
            false => self.bar.println(line),
        }
    }

    /// What was planned next is done with.
    pub fn next(&self) {
        self.done.set(self.done.get() + 1);
        self.bar.inc(1);
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// `[12/84]`
    fn place(&self) -> String {
        let all = self.estimate.all();
        let width = all.to_string().len();
        format!("[{:>width$}/{all}]", self.done.get() + 1)
    }

    fn left(&self, done: usize) -> String {
        let left = self.estimate.left(done, self.start.elapsed());
        // No run is begun after the budget.
        let left = left.map(|left| left.min(self.budget_left().unwrap_or(Duration::MAX)));
        match left {
            None | Some(Duration::ZERO) => String::new(),
            Some(left) => format!("   {}", about_left(left)),
        }
    }
}

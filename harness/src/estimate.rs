//! When a plan will be through: a rough guess for each run, scaled by what the runs that are made took.

use std::time::Duration;

use crate::plan::Planned;

/// A guess for a person who wonders whether to fetch a coffee, of a machine that handles half a gibibyte a
/// second: the model once for each of its copies, and once more to verify it.
pub fn rough_seconds(run: &Planned) -> f64 {
    let bytes = match run.technique.reads_nothing() {
        true => run.footprint().model_bytes,
        false => run.predicted_ram_bytes(),
    };
    (bytes + run.footprint().model_bytes) as f64 / f64::from(1 << 29)
}

/// How long a row of runs still takes.
pub struct Estimate {
    /// The guess for each; 0 for one that will not be made.
    guessed_seconds: Vec<f64>,
}

impl Estimate {
    pub fn new(guessed_seconds: Vec<f64>) -> Estimate {
        Estimate { guessed_seconds }
    }

    pub fn all(&self) -> usize {
        self.guessed_seconds.len()
    }

    /// What is left after the first `done`, which took `elapsed`. `None` where those say nothing about the others.
    pub fn left(&self, done: usize, elapsed: Duration) -> Option<Duration> {
        let (made, missing) = self.guessed_seconds.split_at(done.min(self.all()));
        let (made, missing): (f64, f64) = (made.iter().sum(), missing.iter().sum());
        (made > 0.0).then(|| elapsed.mul_f64(missing / made))
    }
}

/// `about 6 min left`, in a unit that suits.
pub fn about_left(left: Duration) -> String {
    let seconds = left.as_secs_f64();
    let (value, unit) = match seconds {
        ..90.0 => (seconds, "s"),
        ..5400.0 => (seconds / 60.0, "min"),
        _ => (seconds / 3600.0, "h"),
    };
    format!("about {} {unit} left", value.ceil())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_the_guess_at_the_speed_seen_so_far() {
        let estimate = Estimate::new(vec![1.0, 3.0, 0.0, 4.0]);
        let left = |done, seconds| estimate.left(done, Duration::from_secs(seconds));
        assert_eq!(left(0, 5), None, "nothing is known yet");
        assert_eq!(left(1, 10), Some(Duration::from_secs(70)));
        assert_eq!(left(2, 10), Some(Duration::from_secs(10)));
        assert_eq!(
            left(3, 10),
            Some(Duration::from_secs(10)),
            "one that is not made"
        );
        assert_eq!(left(4, 20), Some(Duration::ZERO));
    }

    #[test]
    fn nothing_is_foretold_by_runs_that_were_not_made() {
        let estimate = Estimate::new(vec![0.0, 3.0]);
        assert_eq!(estimate.left(1, Duration::from_secs(1)), None);
    }

    #[test]
    fn a_time_is_told_in_the_unit_that_suits() {
        let told = |seconds| about_left(Duration::from_secs(seconds));
        assert_eq!(told(41), "about 41 s left");
        assert_eq!(told(341), "about 6 min left");
        assert_eq!(told(7201), "about 3 h left");
    }
}

//! Intervals of ratios of times, from few and noisy samples.
//!
//! Times are compared as logarithms: what disturbs a load makes it so many percent slower, not so many seconds. The interval of
//! a mean of logarithms is Student's, so that two or three runs give a wide one and decide only what is far apart.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// How far the times of one session can be from another's on the same machine, whatever is loaded: intervals that decide
/// something are wider by this share on either side.
pub const DRIFT_SHARE: f64 = 0.05;

/// A ratio, and where it lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The geometric mean.
    pub centre: f64,
    pub low: f64,
    pub high: f64,
    /// Samples, or pairs of them, that it rests on.
    pub runs: usize,
}

impl Interval {
    /// Of values that were found one in each repeat, all positive, with this probability of an error. `None` with fewer than
    /// two: one run has no spread.
    pub fn of(values: &[f64], error: f64) -> Option<Interval> {
        let logs = logs(values)?;
        let (mean, deviation) = mean_and_deviation(&logs)?;
        let half = quantile(error, logs.len() - 1) * deviation / (logs.len() as f64).sqrt();
        Some(Interval::around(mean, half, logs.len()))
    }

    /// Of how many times `new` is as long as `old`, two independent sets of samples with the same spread.
    pub fn of_ratio(old: &[f64], new: &[f64], error: f64) -> Option<Interval> {
        let (old, new) = (logs(old)?, logs(new)?);
        let (mean_old, deviation_old) = mean_and_deviation(&old)?;
        let (mean_new, deviation_new) = mean_and_deviation(&new)?;
        let [free_old, free_new] = [old.len() - 1, new.len() - 1];
        let free = free_old + free_new;
        let squares =
            deviation_old.powi(2) * free_old as f64 + deviation_new.powi(2) * free_new as f64;
        let of_mean = (squares / free as f64) * (1.0 / old.len() as f64 + 1.0 / new.len() as f64);
        let half = quantile(error, free) * of_mean.sqrt();
        let runs = old.len().min(new.len());
        Some(Interval::around(mean_new - mean_old, half, runs))
    }

    fn around(mean: f64, half: f64, runs: usize) -> Interval {
        Interval {
            centre: mean.exp(),
            low: (mean - half).exp(),
            high: (mean + half).exp(),
            runs,
        }
    }

    /// With what sessions differ by anyway.
    pub fn with_drift(self) -> Interval {
        Interval {
            low: self.low / (1.0 + DRIFT_SHARE),
            high: self.high * (1.0 + DRIFT_SHARE),
            ..self
        }
    }

    /// The narrower of the two.
    pub fn or_narrower(self, other: Interval) -> Interval {
        match other.high / other.low < self.high / self.low {
            true => other,
            false => self,
        }
    }
}

/// `None` where a value is no positive number.
fn logs(values: &[f64]) -> Option<Vec<f64>> {
    let is_positive = |value: &f64| value.is_finite() && *value > 0.0;
    let all = values.iter().all(is_positive);
    all.then(|| values.iter().map(|value| value.ln()).collect())
}

/// `None` of fewer than two.
fn mean_and_deviation(values: &[f64]) -> Option<(f64, f64)> {
    let count = values.len() as f64;
    if values.len() < 2 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((mean, (squares / (count - 1.0)).sqrt()))
}

/// Of Student's distribution, with the error shared by both sides.
fn quantile(error: f64, free: usize) -> f64 {
    let student = StudentsT::new(0.0, 1.0, free as f64).expect("there is a degree of freedom");
    student.inverse_cdf(1.0 - error / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_students_on_logarithms() {
        // t(0.975, 2) = 4.3027; the logarithms' mean is 0 and their deviation ln 2.
        let interval = Interval::of(&[0.5, 1.0, 2.0], 0.05).unwrap();
        let half = 4.302_652_7 * 2f64.ln() / 3f64.sqrt();
        assert!((interval.centre - 1.0).abs() < 1e-9);
        assert!((interval.high.ln() - half).abs() < 1e-4, "{interval:?}");
        assert!((interval.low.ln() + half).abs() < 1e-4);
        assert_eq!(interval.runs, 3);
    }

    #[test]
    fn fewer_runs_give_a_wider_interval_and_one_gives_none() {
        let width = |values: &[f64]| {
            let interval = Interval::of(values, 0.05).unwrap();
            interval.high / interval.low
        };
        assert!(width(&[1.0, 1.1]) > width(&[1.0, 1.1, 1.0, 1.1]));
        assert_eq!(Interval::of(&[1.0], 0.05), None);
        assert_eq!(Interval::of(&[1.0, 0.0], 0.05), None);
    }

    #[test]
    fn an_interval_holds_the_truth_as_often_as_it_says() {
        let mut random = fastrand::Rng::with_seed(7);
        let normal = |random: &mut fastrand::Rng| {
            let uniform = std::iter::repeat_with(|| random.f64()).take(12);
            uniform.sum::<f64>() - 6.0
        };
        let mut missed = 0;
        for _ in 0..1000 {
            let mut sample = || (0.2 * normal(&mut random)).exp();
            let (old, new): (Vec<f64>, Vec<f64>) = (0..5).map(|_| (sample(), sample())).unzip();
            let interval = Interval::of_ratio(&old, &new, 0.05).unwrap();
            missed += usize::from(interval.low > 1.0 || interval.high < 1.0);
        }
        assert!((20..90).contains(&missed), "{missed} of 1000, 50 expected");
    }
}

//! Numbers that people give, in manifests and on the command line: each has its range here, and is read in one way. What is outside is
//! refused, with the key, the value and the range.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A number that people give.
#[derive(Debug, Clone)]
pub struct Number<T> {
    /// The key, as in manifests, or what the option is about.
    what: &'static str,
    range: RangeInclusive<T>,
}

impl<T> Number<T> {
    const fn new(what: &'static str, range: RangeInclusive<T>) -> Number<T> {
        Number { what, range }
    }
}

/// How often everything is run.
pub const REPEATS: Number<u64> = Number::new("repeats", 1..=10_000);
/// How long a run may take: a week at most.
pub const TIMEOUT_SECONDS: Number<u64> = Number::new("timeout_seconds", 1..=604_800);
/// How long all runs may take: ten weeks at most.
pub const BUDGET_MINUTES: Number<u64> = Number::new("budget_minutes", 1..=100_000);
/// How long runs are made once more to decide claims.
pub const DECIDE_MINUTES: Number<u64> = Number::new("decide_minutes", 0..=100_000);
/// What is left free on a disk: a pebibyte at most.
pub const MIN_FREE_DISK: Number<u64> = Number::new("min_free_disk", 0..=1 << 50);
/// What may be on its way to a device; pieces have a page each, or more.
pub const STAGING: Number<u64> = Number::new("staging", 32 << 10..=64 << 30);
/// Threads that read.
pub const THREADS: Number<u64> = Number::new("threads", 1..=1024);
/// Reads in flight.
pub const QUEUE_DEPTH: Number<u64> = Number::new("queue_depth", 1..=1024);
/// Layers on the device at once.
pub const RESIDENT_LAYERS: Number<u64> = Number::new("resident_layers", 1..=1024);
/// Pairs of loads.
pub const PAIRS: Number<u64> = Number::new("pairs", 1..=10_000);
/// Tokens that are added to a text.
pub const COUNT: Number<u64> = Number::new("count", 1..=1_000_000_000);
/// Steps of training.
pub const STEPS: Number<u64> = Number::new("steps", 1..=1_000_000_000);
/// Of each step.
pub const LEARNING_RATE: Number<f64> = Number::new("learning rate", 1e-30..=1e30);
/// Growth that is none, in percent.
pub const PERCENT: Number<f64> = Number::new("percentage", 0.0..=1e6);
/// How far a value may be off what is expected, relative to it.
pub const TOLERANCE: Number<f64> = Number::new("tolerance", 0.0..=1e6);
/// What a claim expects.
pub const EXPECTED: Number<f64> = Number::new("expected value", -1e300..=1e300);
/// A cap, in multiples of the model.
pub const TIMES: Number<f64> = Number::new("multiple of the model", 1e-6..=1e6);

impl<T: PartialOrd + fmt::Display + fmt::LowerExp + Copy> Number<T> {
    /// That it lies in the range.
    ///
    /// # Errors
    ///
    /// Key, value and range.
    pub fn check(&self, value: T) -> Result<T, String> {
        let (what, value_shown) = (self.what, shown(value));
        match self.range.contains(&value) {
            true => Ok(value),
            false => Err(format!(
                "{what} is {value_shown}: it must be {}",
                self.bounds()
            )),
        }
    }

    /// `from 1 to 10000`
    fn bounds(&self) -> String {
        let [least, most] = [self.range.start(), self.range.end()].map(|bound| shown(*bound));
        format!("from {least} to {most}")
    }
}

impl<T: PartialOrd + fmt::Display + fmt::LowerExp + Copy + FromStr> Number<T> {
    /// Reads it as it is written on a command line.
    ///
    /// # Errors
    ///
    /// What was expected.
    pub fn parse(&self, text: &str) -> Result<T, String> {
        let value: Result<T, _> = text.parse();
        let value = value.map_err(|_| format!("`{text}` is no {} {}", self.what, self.bounds()))?;
        self.check(value)
    }
}

/// As people write it: `1e30`, and no row of zeros.
fn shown<T: fmt::Display + fmt::LowerExp>(value: T) -> String {
    let plain = value.to_string();
    match plain.len() > 20 {
        true => format!("{value:e}"),
        false => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_of_a_range_is_refused_with_key_value_and_range() {
        assert_eq!(REPEATS.parse("3"), Ok(3));
        for wrong in ["0", "-1", "10001", "1.5", "99999999999999999999", "inf", ""] {
            let error = REPEATS.parse(wrong).unwrap_err();
            let is_told = ["repeats", wrong, "1 to 10000"];
            assert!(is_told.iter().all(|part| error.contains(part)), "{error}");
        }
        for wrong in ["nan", "inf", "-1", "1e999"] {
            assert!(PERCENT.parse(wrong).is_err(), "{wrong}");
            assert!(LEARNING_RATE.parse(wrong).is_err(), "{wrong}");
            assert!(TIMES.parse(wrong).is_err(), "{wrong}");
        }
        assert!(LEARNING_RATE.parse("0").is_err());
    }
}

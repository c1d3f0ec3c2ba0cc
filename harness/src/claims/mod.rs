//! Claims about the results: written in the manifest, judged by the machine.
//!
//! ```toml
//! [[claims]]
//! sentence = "naive holds the model twice on the device"
//! value = "{naive.device_in_use_peak_bytes} / {init-only.device_in_use_peak_bytes}"
//! expect = 2.0            # or at_most, or at_least
//! tolerance = 0.05        # of `expect`, relative
//! study = "12.8 GiB, against 6.4 GiB"
//! memory = "discrete"     # or unified; both where it is left out
//! sizes = ["xl"]          # all where it is left out
//! cache = "warm"          # or cold; both where it is left out
//! differs = "why Burn truly differs from PyTorch here"
//! ```
//!
//! A value is an expression over the medians of runs without a host cap: `{experiment.measure}`, where the
//! measures are the columns of `summary.csv` and a few more (see [`MORE_MEASURES`]). `{experiment@small.measure}` is
//! that of another size on the same device. A value that speaks of seconds is computed for each repeat, in which all techniques
//! ran interleaved, and judged by the interval of its mean.

mod judge;

use std::ops::Range;

use exmex::Express;
use meter::CacheState;
use serde::Deserialize;
use toml::Spanned;

use crate::manifest::{experiment_names, parse_size, unknown, unknown_experiment};
use crate::number;
use crate::registry;
use crate::summary::measures;
pub use judge::{Finding, Found, Judged, Judgement, Verdict, Wanted, judge};

/// What a claim may speak of, beside what is measured in a run.
pub const MORE_MEASURES: [&str; 5] = [
    "model_bytes",
    "largest_tensor_bytes",
    // The share of runs whose weights were found right, and that of runs that kept their contract.
    "verified",
    "contract_held",
    // The smallest host cap that it survived in.
    "smallest_host_cap_bytes",
];

/// A claim, checked.
#[derive(Debug, Clone)]
pub struct Claim {
    pub sentence: String,
    pub value: String,
    variables: Vec<Variable>,
    pub expectation: Expectation,
    pub study: Option<String>,
    memory: Option<Memory>,
    sizes: Option<Vec<String>>,
    cache: Option<CacheState>,
    /// Why Burn truly differs here; such a claim is not expected to hold.
    pub differs: Option<String>,
}

/// What the value is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expectation {
    About { value: f64, tolerance: f64 },
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    Discrete,
    Unified,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    experiment: String,
    /// At this size, and not at that of the scene.
    size: Option<String>,
    measure: String,
}

/// A claim as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimTable {
    sentence: String,
    value: Spanned<String>,
    #[serde(default)]
    expect: Option<f64>,
    #[serde(default)]
    at_most: Option<f64>,
    #[serde(default)]
    at_least: Option<f64>,
    #[serde(default)]
    tolerance: Option<f64>,
    #[serde(default)]
    study: Option<String>,
    #[serde(default)]
    memory: Option<Memory>,
    #[serde(default)]
    sizes: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    cache: Option<Spanned<String>>,
    #[serde(default)]
    differs: Option<String>,
}

impl ClaimTable {
    /// Checks it. `externals` are the manifest's commands; `at` says where in the manifest something stands.
    pub fn check(
        self,
        externals: &[&str],
        at: &impl Fn(Range<usize>, String) -> String,
    ) -> Result<Claim, String> {
        let span = self.value.span();
        let value = self.value.into_inner();
        let wrong = |message: String| at(span.clone(), message);
        check_length(&value).map_err(&wrong)?;
        let parsed = exmex::parse::<f64>(&value);
        let parsed = parsed.map_err(|error| wrong(format!("`{value}` is no value: {error}")))?;
        let variables = parsed.var_names().iter();
        let variables = variables.map(|name| variable(name, externals));
        let variables: Vec<Variable> = variables.collect::<Result<_, _>>().map_err(&wrong)?;
        // With numbers of which no two are equal: what divides by zero with them always does.
        let primes = [2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0, 23.0, 29.0];
        let trial: Vec<f64> = primes.into_iter().cycle().take(variables.len()).collect();
        let is_number = parsed.eval(&trial).is_ok_and(f64::is_finite);
        if !is_number {
            return Err(wrong(format!(
                "`{value}` is no number, whatever is measured: does it divide by zero?"
            )));
        }
        if variables.is_empty() {
            let message = "a claim's value must speak of a measure, as in {naive.load_seconds}";
            return Err(wrong(message.to_owned()));
        }
        let expectation = match (self.expect, self.at_most, self.at_least) {
            (Some(value), None, None) => Expectation::About {
                value,
                tolerance: self.tolerance.unwrap_or(0.05),
            },
            (None, Some(most), None) if self.tolerance.is_none() => Expectation::AtMost(most),
            (None, None, Some(least)) if self.tolerance.is_none() => Expectation::AtLeast(least),
            _ => {
                let message =
                    "a claim has one of `expect` (with a `tolerance`), `at_most` and `at_least`";
                return Err(wrong(message.to_owned()));
            }
        };
        for expected in [self.expect, self.at_most, self.at_least]
            .into_iter()
            .flatten()
        {
            number::EXPECTED.check(expected).map_err(&wrong)?;
        }
        if let Some(tolerance) = self.tolerance {
            number::TOLERANCE.check(tolerance).map_err(&wrong)?;
        }
        let sizes = self.sizes.map(|sizes| {
            let check = |size: Spanned<String>| match parse_size(size.get_ref()) {
                Ok(size) => Ok(size.to_string()),
                Err(message) => Err(at(size.span(), message)),
            };
            sizes.into_iter().map(check).collect::<Result<Vec<_>, _>>()
        });
        let cache = self.cache.map(|state| {
            let parsed: Result<CacheState, String> = state.get_ref().parse();
            parsed.map_err(|message| at(state.span(), message))
        });
        Ok(Claim {
            sentence: self.sentence,
            value,
            variables,
            expectation,
            study: self.study,
            memory: self.memory,
            sizes: sizes.transpose()?,
            cache: cache.transpose()?,
            differs: self.differs,
        })
    }
}

/// That it is no longer, and no deeper, than a person reads: what parses it takes time and stack for each term.
fn check_length(value: &str) -> Result<(), String> {
    const MOST_BYTES: usize = 4096;
    const DEEPEST: usize = 64;
    if value.len() > MOST_BYTES {
        let bytes = value.len();
        return Err(format!(
            "a claim's value of {bytes} bytes: {MOST_BYTES} are the most"
        ));
    }
    let mut depth = 0usize;
    for c in value.chars() {
        depth = match c {
            '(' => depth + 1,
            ')' => depth.saturating_sub(1),
            _ => depth,
        };
        if depth > DEEPEST {
            return Err(format!(
                "a claim's value with more than {DEEPEST} parentheses in each other"
            ));
        }
    }
    Ok(())
}

fn variable(name: &str, externals: &[&str]) -> Result<Variable, String> {
    let Some((experiment, measure)) = name.split_once('.') else {
        return Err(format!(
            "`{name}` is no measure: write {{experiment.measure}}, as in {{naive.load_seconds}}"
        ));
    };
    let (experiment, size) = match experiment.split_once('@') {
        None => (experiment, None),
        Some((experiment, size)) => (experiment, Some(parse_size(size)?.to_string())),
    };
    if registry::find(experiment).is_none() && !externals.contains(&experiment) {
        return Err(unknown_experiment(experiment, experiment_names()));
    }
    let known = || measures().map(|measure| measure.name).chain(MORE_MEASURES);
    if !known().any(|known| known == measure) {
        return Err(unknown("measure", measure, known()));
    }
    Ok(Variable {
        experiment: registry::current_name(experiment).to_owned(),
        size,
        measure: measure.to_owned(),
    })
}

impl Expectation {
    /// `2 ± 5 %`, `at most 0.3`
    pub fn describe(self) -> String {
        match self {
            Expectation::About { value, tolerance } => format!("{value} ± {} %", 100.0 * tolerance),
            Expectation::AtMost(most) => format!("at most {most}"),
            Expectation::AtLeast(least) => format!("at least {least}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    /// The claims of a manifest with this one in it.
    pub fn claims(text: &str) -> Result<Vec<Claim>, String> {
        let text = format!(
            "[matrix]\nexperiments = ['all']\nsizes = ['small']\n[[claims]]\nsentence = 's'\n{text}\n"
        );
        let manifest = Manifest::parse("test".to_owned(), "test.toml", &text)?;
        Ok(manifest.claims)
    }

    #[test]
    fn a_claim_of_a_kept_manifest_speaks_of_an_experiment_by_its_former_name() {
        let claims =
            claims("value = '{floor:disk.load_seconds} / {naive.load_seconds}'\nat_most = 1");
        let names: Vec<_> = claims.unwrap()[0]
            .variables
            .iter()
            .map(|variable| variable.experiment.clone())
            .collect();
        assert_eq!(names, ["plain-read:direct", "naive"]);
    }

    #[test]
    fn a_wrong_claim_is_refused_with_its_line_and_the_nearest_valid_word() {
        let cases = [
            (
                "value = '{naiv.load_seconds}'\nexpect = 1",
                "did you mean `naive`?",
            ),
            (
                "value = '{naive.load_second}'\nexpect = 1",
                "did you mean `load_seconds`?",
            ),
            ("value = 'load_seconds'\nexpect = 1", "is no measure"),
            (
                "value = '{naive.load_seconds} /'\nexpect = 1",
                "is no value",
            ),
            ("value = '1 + 1'\nexpect = 2", "must speak of a measure"),
            (
                "value = '{naive.load_seconds} / 0'\nexpect = 2",
                "does it divide by zero?",
            ),
            (
                "value = '1 / ({naive.load_seconds} - {naive.load_seconds})'\nexpect = 2",
                "does it divide by zero?",
            ),
            ("value = 'loud({naive.load_seconds})'\nexpect = 2", ""),
            (
                "value = '{naive.load_seconds}'\nexpect = nan",
                "expected value is NaN",
            ),
            (
                "value = '{naive.load_seconds}'\nexpect = 1\ntolerance = -1",
                "tolerance is -1: it must be from 0",
            ),
            ("value = '{naive.load_seconds}'", "has one of"),
            (
                "value = '{naive.load_seconds}'\nat_most = 1\nat_least = 1",
                "has one of",
            ),
            (
                "value = '{naive.load_seconds}'\nexpected = 1",
                "did you mean `expect`?",
            ),
        ];
        for (text, expected) in cases {
            let error = claims(text).err().unwrap();
            assert!(
                error.contains(expected),
                "{error}\nshould contain {expected}"
            );
            assert!(
                error.starts_with("test.toml:6:") || error.starts_with("test.toml:7:"),
                "{error}"
            );
        }
    }
}

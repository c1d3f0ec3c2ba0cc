//! Recorded times, and which of them are true of a situation.

use std::fmt;

use lab::Quantity;
use serde::Serialize;

use crate::configuration::Configuration;
use crate::record::Record;
use crate::summary::Spread;
use crate::units;

/// What is recorded of a technique's time that is true of a situation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Times {
    Measured {
        /// `warm` or `cold`: the page cache when the load began.
        cache: String,
        load: Timing,
        /// Load and first forward: what a person waits for.
        ready: Option<Timing>,
    },
    /// Recorded with the whole file in the page cache only, for which the memory is too small.
    NotMeasuredCold,
    NotMeasured,
}

/// A time over several runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timing {
    pub median_seconds: f64,
    pub min_seconds: f64,
    pub max_seconds: f64,
    pub runs: usize,
    /// There are no other runs than ones that something may have spoilt.
    pub may_be_spoilt: bool,
}

impl Times {
    pub fn load(&self) -> Option<&Timing> {
        match self {
            Times::Measured { load, .. } => Some(load),
            _ => None,
        }
    }

    pub fn ready(&self) -> Option<&Timing> {
        match self {
            Times::Measured { ready, .. } => ready.as_ref(),
            _ => None,
        }
    }
}

/// `0.719 s (0.70 to 0.91, n = 5)`
impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |seconds: f64| units::seconds(seconds).trim_end_matches(" s").to_owned();
        write!(f, "{} (", units::seconds(self.median_seconds))?;
        if self.runs > 1 {
            write!(
                f,
                "{} to {}, ",
                bare(self.min_seconds),
                bare(self.max_seconds)
            )?;
        }
        write!(f, "n = {}", self.runs)?;
        f.write_str(if self.may_be_spoilt {
            ", may be spoilt)"
        } else {
            ")"
        })
    }
}

/// The runs of one technique in one configuration that count.
pub struct Runs<'a> {
    pub experiment: String,
    pub cache: String,
    runs: Vec<&'a Record>,
    may_be_spoilt: bool,
}

impl<'a> Runs<'a> {
    /// The clean ones of these rows; those that may be spoilt where there are no others. `None` where none ended well.
    pub fn of(configuration: Configuration, rows: &[&'a Record]) -> Option<Runs<'a>> {
        let measured = rows.iter().copied().filter(|row| row.is_measured());
        let (clean, spoilt): (Vec<&Record>, Vec<&Record>) =
            measured.partition(|row| !row.spoilt_by.iter().any(|by| by.moves(Quantity::Time)));
        let may_be_spoilt = clean.is_empty();
        let runs = if may_be_spoilt { spoilt } else { clean };
        (!runs.is_empty()).then_some(Runs {
            experiment: configuration.experiment,
            cache: configuration.cache,
            runs,
            may_be_spoilt,
        })
    }

    /// How far the logits are off, in the median.
    pub fn logits_error(&self) -> Option<f64> {
        let errors = self.runs.iter().filter_map(|run| run.measures.logits_error);
        Spread::of(errors).map(|spread| spread.median)
    }

    fn timing(&self, seconds: impl Fn(&Record) -> Option<f64>) -> Option<Timing> {
        let values: Vec<f64> = self.runs.iter().filter_map(|run| seconds(run)).collect();
        let runs = values.len();
        let spread = Spread::of(values)?;
        Some(Timing {
            median_seconds: spread.median,
            min_seconds: spread.min,
            max_seconds: spread.max,
            runs,
            may_be_spoilt: self.may_be_spoilt,
        })
    }

    fn times(&self) -> Option<Times> {
        Some(Times::Measured {
            cache: self.cache.clone(),
            load: self.timing(|run| run.measures.load_seconds)?,
            ready: self.timing(|run| run.measures.ready_seconds()),
        })
    }
}

/// What one technique's runs tell of a memory that holds its file beside the technique, or does not; and how far its logits
/// are off. Warm before cold, for that is what is mostly measured.
pub fn told(of_technique: &[&Runs<'_>], holds_file: bool) -> (Times, Option<f64>) {
    // Of several tunings the one that was run most often, and last.
    let most_runs = |cache: &str| {
        let those = of_technique.iter().filter(|runs| runs.cache == cache);
        those.max_by_key(|runs| runs.runs.len())
    };
    let (warm, cold) = (most_runs("warm"), most_runs("cold"));
    let told = match holds_file {
        true => warm.or(cold),
        false => cold,
    };
    let times = match (told.and_then(|runs| runs.times()), warm) {
        (Some(times), _) => times,
        (None, Some(_)) => Times::NotMeasuredCold,
        (None, None) => Times::NotMeasured,
    };
    // What the logits are does not depend on the page cache.
    let logits_error = told.or(warm).and_then(|runs| runs.logits_error());
    (times, logits_error)
}

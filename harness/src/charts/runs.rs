//! How many runs the medians of a chart rest on.

use crate::summary::{Line, Spread};

/// The runs that a line's medians rest on.
pub fn behind(line: &Line) -> usize {
    let (clean, spoilt) = (
        line.load_samples_seconds.len(),
        line.spoilt_load_samples_seconds.len(),
    );
    let of_clean = Spread::of(line.load_samples_seconds.iter().copied());
    match (line.is_spoilt, of_clean == line.load_seconds) {
        (true, _) => spoilt,
        (false, true) => clean,
        // Those that may be spoilt were asked for.
        (false, false) => clean + spoilt,
    }
}

/// How many runs are behind each of these lines, where it is the same for all.
pub fn behind_each<'l>(lines: impl IntoIterator<Item = &'l Line>) -> Option<usize> {
    let mut counts = lines.into_iter().map(behind);
    let first = counts.next()?;
    counts.all(|count| count == first).then_some(first)
}

/// What stands after a chart's subtitle: `: medians of 5 runs`.
pub fn told(behind_each: Option<usize>) -> String {
    match behind_each {
        Some(1) => ": one run each".to_owned(),
        Some(runs) => format!(": medians of {runs} runs"),
        None => ": medians of n runs".to_owned(),
    }
}

/// `n = 3`, where that differs from line to line.
pub fn note(line: &Line, behind_each: Option<usize>) -> Option<String> {
    match behind_each {
        Some(_) => None,
        None => Some(format!("n = {}", behind(line))),
    }
}

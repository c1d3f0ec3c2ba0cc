//! How many runs the medians of a chart rest on.

use lab::Quantity;

use crate::summary::Line;

/// The runs that a line's medians of such numbers rest on.
pub fn behind(line: &Line, quantity: Quantity) -> usize {
    line.counted(quantity).count()
}

/// How many runs are behind each of these lines, where it is the same for all.
pub fn behind_each<'l>(
    lines: impl IntoIterator<Item = &'l Line>,
    quantity: Quantity,
) -> Option<usize> {
    let mut counts = lines.into_iter().map(|line| behind(line, quantity));
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
pub fn note(line: &Line, quantity: Quantity, behind_each: Option<usize>) -> Option<String> {
    match behind_each {
        Some(_) => None,
        None => Some(format!("n = {}", behind(line, quantity))),
    }
}

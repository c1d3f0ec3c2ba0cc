//! `harness compare`: the same configurations of two folders of results, side by side.

use anyhow::ensure;

use crate::cli::CompareArgs;
use crate::exit::Ended;
use crate::results::read_runs;
use crate::sheet::{ABSENT, Sheet, numbers, words};
use crate::summary::{Line, Measure, Spoilt, Spread, summarise};
use crate::units;

/// Growth below this is never a regression: alignment, names, a runtime's buffers.
const SLACK_BYTES: f64 = (1 << 20) as f64;

pub fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    let spoilt = Spoilt::counted_if(args.include_spoilt);
    let old = summarise(&read_runs(&args.old)?, spoilt);
    let new = summarise(&read_runs(&args.new)?, spoilt);
    let comparison = Comparison::of(&old, &new, args.tolerance);
    ensure!(
        !comparison.sheet.rows.is_empty(),
        "{} and {} have no configuration in common: there is nothing to compare",
        args.old.display(),
        args.new.display()
    );
    println!("{}", comparison.sheet.terminal());
    match comparison.regressed {
        0 => Ok(()),
        regressed => Err(Ended::Regressed {
            regressed,
            tolerance_percent: args.tolerance,
        }
        .into()),
    }
}

struct Comparison {
    sheet: Sheet,
    regressed: usize,
}

impl Comparison {
    fn of(old: &[Line], new: &[Line], tolerance_percent: f64) -> Comparison {
        let mut sheet = Sheet {
            title: "Medians, old → new; peaks judged are those of the exact instruments".to_owned(),
            columns: vec![
                words("configuration"),
                numbers("host heap peak"),
                numbers("host resident peak"),
                numbers("device peak"),
                numbers("load, new / old"),
                words("verdict"),
            ],
            rows: Vec::new(),
            remarks: Vec::new(),
        };
        let mut regressed = 0;
        for before in old {
            let label = before.configuration.label();
            let Some(after) = find(new, before) else {
                sheet
                    .remarks
                    .push(format!("only in the old results: {label}"));
                continue;
            };
            let grown: Vec<&str> = JUDGED
                .iter()
                .filter(|(_, measure)| {
                    has_grown(measure(before), measure(after), tolerance_percent)
                })
                .map(|(name, _)| *name)
                .collect();
            let verdict = if before.ok > 0 && after.ok == 0 {
                let (status, reason) = after.trouble.clone().unzip();
                let status = status.map(|status| status.to_string());
                format!(
                    "worse: {}: {}",
                    status.unwrap_or_default(),
                    reason.unwrap_or_default()
                )
            } else if grown.is_empty() {
                "as before or better".to_owned()
            } else {
                format!("worse: {}", grown.join(", "))
            };
            regressed += usize::from(verdict.starts_with("worse"));
            sheet.rows.push(vec![
                label,
                peaks(before.host_heap_peak_bytes, after.host_heap_peak_bytes),
                peaks(before.host_rss_peak_bytes, after.host_rss_peak_bytes),
                peaks(
                    before.device_in_use_peak_bytes,
                    after.device_in_use_peak_bytes,
                ),
                times(before.load_seconds, after.load_seconds),
                verdict,
            ]);
        }
        let only_new = new.iter().filter(|line| find(old, line).is_none());
        let only_new = only_new.map(|line| line.configuration.label());
        let only_new = only_new.map(|label| format!("only in the new results: {label}"));
        sheet.remarks.extend(only_new);
        Comparison { sheet, regressed }
    }
}

/// The peaks that must not grow.
const JUDGED: [Measure; 2] = [
    ("host heap", |line| line.host_heap_peak_bytes),
    ("device", |line| line.device_in_use_peak_bytes),
];

fn find<'a>(lines: &'a [Line], wanted: &Line) -> Option<&'a Line> {
    let same = |line: &&Line| line.configuration == wanted.configuration;
    lines.iter().find(same)
}

fn has_grown(before: Option<Spread>, after: Option<Spread>, tolerance_percent: f64) -> bool {
    let Some((before, after)) = before.zip(after) else {
        return false;
    };
    let allowed = SLACK_BYTES.max(before.median * tolerance_percent / 100.0);
    after.median - before.median > allowed
}

/// `1.51 GiB → 1.52 GiB (+0.4 %)`
fn peaks(before: Option<Spread>, after: Option<Spread>) -> String {
    let shown = |spread: Option<Spread>| {
        spread.map_or(ABSENT.to_owned(), |spread| {
            units::bytes(spread.median as u64)
        })
    };
    let grown = before.zip(after).filter(|(before, _)| before.median > 0.0);
    let grown = grown.map(|(before, after)| 100.0 * (after.median / before.median - 1.0));
    let grown = grown.map_or(String::new(), |percent| format!(" ({percent:+.1} %)"));
    match (before, after) {
        (None, None) => ABSENT.to_owned(),
        _ => format!("{} → {}{grown}", shown(before), shown(after)),
    }
}

/// `0.97 (0.91 to 1.10)`: the ratio of medians, and of the extremes.
fn times(before: Option<Spread>, after: Option<Spread>) -> String {
    match before.zip(after) {
        Some((before, after)) => format!(
            "{:.2} ({:.2} to {:.2})",
            after.median / before.median,
            after.min / before.max,
            after.max / before.min
        ),
        None => ABSENT.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use lab::Status;

    use super::*;
    use crate::record::Record;

    fn lines(heap_bytes: u64, load_seconds: f64) -> Vec<Line> {
        let row = Record {
            experiment: "naive".to_owned(),
            model_bytes: 1 << 30,
            status: Status::Ok,
            verified: true,
            host_heap_peak_bytes: Some(heap_bytes),
            load_seconds: Some(load_seconds),
            ..Record::unmeasured()
        };
        summarise(&[row], Spoilt::LeftOut)
    }

    #[test]
    fn memory_that_grew_beyond_the_tolerance_is_a_regression_and_time_is_not() {
        let old = lines(1 << 30, 1.0);
        let regressed = |new: Vec<Line>| Comparison::of(&old, &new, 1.0).regressed;
        assert_eq!(regressed(lines(1 << 30, 9.0)), 0);
        assert_eq!(regressed(lines((1 << 30) + (10 << 20), 1.0)), 0);
        assert_eq!(regressed(lines((1 << 30) + (11 << 20), 1.0)), 1);
        assert_eq!(regressed(lines(1 << 20, 1.0)), 0);
        // A little of nothing much is no regression.
        let small = Comparison::of(&lines(1000, 1.0), &lines(900_000, 1.0), 1.0);
        assert_eq!(small.regressed, 0);
    }

    #[test]
    fn a_run_that_no_longer_ends_well_is_a_regression() {
        let old = lines(1 << 30, 1.0);
        let mut new = old.clone();
        new[0].ok = 0;
        new[0].trouble = Some((Status::Oom, "too large".to_owned()));
        let comparison = Comparison::of(&old, &new, 1.0);
        assert_eq!(comparison.regressed, 1);
        assert_eq!(
            comparison.sheet.rows[0].last().unwrap(),
            "worse: oom: too large"
        );
    }

    #[test]
    fn time_is_a_ratio_with_its_spread() {
        let spread = |median, min, max| Some(Spread { median, min, max });
        assert_eq!(
            times(spread(2.0, 1.0, 4.0), spread(3.0, 2.0, 5.0)),
            "1.50 (0.50 to 5.00)"
        );
    }
}

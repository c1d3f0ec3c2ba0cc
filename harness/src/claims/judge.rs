//! Claims held against the summary: on each device, at each size, dtype and cache state.

use std::collections::BTreeMap;

use exmex::{Express, FlatEx};
use lab::{Quantity, Spoiling};

use super::{Claim, Expectation, Memory, Variable};
use crate::driver::device_name;
use crate::interval::{DRIFT_SHARE, Interval};
use crate::smallest_cap::Found as SmallestCap;
use crate::summary::{self, Line, Measure};

/// How often a verdict on a time may be wrong.
const ERROR: f64 = 0.01;

/// What became of a claim on one device, at one size, dtype and cache state.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    Holds(Found),
    /// With how far it is off, in words.
    DoesNotHold(Found, String),
    /// A time that these runs do not decide, with the reason.
    Undecided(Option<Found>, String),
    /// With the reason.
    NotMeasured(String),
}

/// A claim's value: of medians, or, where it speaks of times, of the repeats, with an interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    pub value: f64,
    pub interval: Option<Interval>,
}

/// A claim on one scene of the results.
pub struct Judgement {
    /// `software Vulkan: llvmpipe, medium, f32, warm`
    pub scene: String,
    pub finding: Finding,
    /// The configurations of which more repeats would decide it.
    pub wanted: Vec<Wanted>,
}

/// A configuration without a host cap, by what manifests call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub experiment: String,
    pub model: String,
    pub device: String,
    pub dtype: String,
    pub cache: String,
}

/// A claim with everything found of it.
pub struct Judged<'a> {
    pub claim: &'a Claim,
    pub findings: Vec<Judgement>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    DoesNotHold,
    /// As the claim itself says, with the reason.
    DiffersAsKnown,
    /// More repeats are needed, or it is too near to its limit.
    Undecided,
    NotMeasured,
}

impl Judged<'_> {
    /// It holds where it holds wherever it was measured.
    pub fn verdict(&self) -> Verdict {
        let any = |is: fn(&Finding) -> bool| self.findings.iter().any(|one| is(&one.finding));
        if any(|finding| matches!(finding, Finding::DoesNotHold(..))) {
            match self.claim.differs {
                Some(_) => Verdict::DiffersAsKnown,
                None => Verdict::DoesNotHold,
            }
        } else if any(|finding| matches!(finding, Finding::Undecided(..))) {
            Verdict::Undecided
        } else if any(|finding| matches!(finding, Finding::Holds(_))) {
            Verdict::Holds
        } else {
            Verdict::NotMeasured
        }
    }
}

/// Judges each claim on every scene of the results.
pub fn judge<'a>(claims: &'a [Claim], lines: &[Line], caps: &[SmallestCap]) -> Vec<Judged<'a>> {
    let mut scenes: Vec<Scene<'_>> = Vec::new();
    for line in lines {
        let scene = Scene::of(line);
        if !scenes.contains(&scene) {
            scenes.push(scene);
        }
    }
    let judged = claims.iter().map(|claim| {
        let wanted = scenes.iter().filter(|scene| scene.is_of(claim));
        let mut findings: Vec<_> = wanted
            .map(|scene| scene.judge(claim, lines, caps))
            .collect();
        if findings.is_empty() {
            let memory = match claim.memory {
                Some(Memory::Discrete) => " with memory of its own",
                Some(Memory::Unified) => " that shares the host's memory",
                None => "",
            };
            let sizes = claim.sizes.as_ref().map(|sizes| sizes.join(", "));
            let sizes = sizes.map_or(String::new(), |sizes| format!(" at size {sizes}"));
            let reason = format!("nothing was run on a device{memory}{sizes}");
            findings.push(Judgement {
                scene: "everywhere".to_owned(),
                finding: Finding::NotMeasured(reason),
                wanted: Vec::new(),
            });
        }
        Judged { claim, findings }
    });
    judged.collect()
}

/// Where a claim can be judged: everything but the experiment, without a host cap.
#[derive(Clone, Copy, PartialEq)]
struct Scene<'a> {
    device: &'a str,
    driver: Option<&'a str>,
    model: &'a str,
    dtype: &'a str,
    cache: &'a str,
    is_unified: bool,
}

impl<'a> Scene<'a> {
    fn of(line: &'a Line) -> Scene<'a> {
        let c = &line.configuration;
        Scene {
            device: &c.device,
            driver: line.driver.as_deref(),
            model: &c.model,
            dtype: &c.dtype,
            cache: &c.cache,
            is_unified: line.is_unified,
        }
    }

    fn title(&self) -> String {
        let device = device_name(self.device, self.driver);
        format!("{device} {} {} {}", self.model, self.dtype, self.cache)
    }

    fn is_of(&self, claim: &Claim) -> bool {
        let memory = match claim.memory {
            None => true,
            Some(Memory::Unified) => self.is_unified,
            Some(Memory::Discrete) => !self.is_unified,
        };
        let cache = claim
            .cache
            .is_none_or(|cache| cache.to_string() == self.cache);
        let sizes = claim.sizes.as_ref();
        memory && cache && sizes.is_none_or(|sizes| sizes.iter().any(|size| size == self.model))
    }

    fn judge(&self, claim: &Claim, lines: &[Line], caps: &[SmallestCap]) -> Judgement {
        let finding = match claim.is_timed() {
            true => self.judge_times(claim, lines, caps),
            false => self.evaluate(claim, |variable| self.value(variable, lines, caps)),
        };
        let wanted = match &finding {
            Finding::Undecided(found, _) if !claim.is_too_near(*found) => {
                let variables = claim.variables.iter();
                variables.map(|variable| self.wanted(variable)).collect()
            }
            _ => Vec::new(),
        };
        Judgement {
            scene: self.title(),
            finding,
            wanted,
        }
    }

    /// Of one value for each variable.
    fn evaluate(
        &self,
        claim: &Claim,
        value_of: impl Fn(&Variable) -> Result<f64, String>,
    ) -> Finding {
        match self.value_of_claim(claim, value_of) {
            Ok(value) => claim.expectation.judge(value),
            Err(reason) => Finding::NotMeasured(reason),
        }
    }

    fn value_of_claim(
        &self,
        claim: &Claim,
        value_of: impl Fn(&Variable) -> Result<f64, String>,
    ) -> Result<f64, String> {
        let values = claim.variables.iter().map(value_of);
        let values: Vec<f64> = values.collect::<Result<_, _>>()?;
        // Parsed before, when the manifest was read.
        let value =
            exmex::parse::<f64>(&claim.value).and_then(|value: FlatEx<f64>| value.eval(&values));
        match value {
            Ok(value) if value.is_finite() => Ok(value),
            Ok(_) => Err("its value is no number: something measured as 0 divides it".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Of one value for each repeat, in which all techniques ran interleaved.
    fn judge_times(&self, claim: &Claim, lines: &[Line], caps: &[SmallestCap]) -> Finding {
        let spoilt = claim.variables.iter().find_map(|variable| {
            let line = self.line(variable, lines)?;
            (variable.timed().is_some() && line.is_spoilt(Quantity::Time))
                .then(|| only_spoilt(&variable.experiment, line, Quantity::Time))
        });
        if let Some(reason) = spoilt {
            return Finding::Undecided(None, reason);
        }
        // Whether everything is there at all, with the reason where it is not.
        let of_medians = |variable: &Variable| self.value(variable, lines, caps);
        let of_medians = match self.value_of_claim(claim, of_medians) {
            Ok(value) => value,
            Err(reason) => return Finding::NotMeasured(reason),
        };
        let timed = claim.variables.iter().filter_map(|variable| {
            let measure = variable.timed()?;
            let line = self.line(variable, lines)?;
            let counted = line.counted(Quantity::Time);
            let values =
                counted.filter_map(|good| Some((good.repeat, (measure.of)(&good.measures)?)));
            Some((variable, values.collect::<BTreeMap<u32, f64>>()))
        });
        let timed: Vec<(&Variable, BTreeMap<u32, f64>)> = timed.collect();
        let repeats: Vec<u32> = match timed.first() {
            Some((_, first)) => first.keys().copied().collect(),
            None => Vec::new(),
        };
        let values = repeats.iter().filter_map(|repeat| {
            let of_repeat =
                |variable: &Variable| match timed.iter().find(|(known, _)| *known == variable) {
                    Some((_, values)) => values.get(repeat).copied().ok_or_else(String::new),
                    None => self.value(variable, lines, caps),
                };
            self.value_of_claim(claim, of_repeat).ok()
        });
        let values: Vec<f64> = values.collect();
        match Interval::of(&values, ERROR) {
            Some(interval) => claim.expectation.judge_time(interval),
            None => {
                let found = Found {
                    value: of_medians,
                    interval: None,
                };
                let reason = match values.len() {
                    0 | 1 => "one repeat has no spread",
                    _ => "a value that is not above 0 has no ratio to its limit",
                };
                Finding::Undecided(Some(found), reason.to_owned())
            }
        }
    }

    fn wanted(&self, variable: &Variable) -> Wanted {
        Wanted {
            experiment: variable.experiment.clone(),
            model: variable.size.as_deref().unwrap_or(self.model).to_owned(),
            device: self.device.to_owned(),
            dtype: self.dtype.to_owned(),
            cache: self.cache.to_owned(),
        }
    }

    /// The runs of a variable's experiment, without a host cap.
    fn line<'l>(&self, variable: &Variable, lines: &'l [Line]) -> Option<&'l Line> {
        let wanted = self.wanted(variable);
        lines.iter().find(|line| {
            let c = &line.configuration;
            (&c.experiment, &c.model, &c.device, &c.dtype, &c.cache)
                == (
                    &wanted.experiment,
                    &wanted.model,
                    &wanted.device,
                    &wanted.dtype,
                    &wanted.cache,
                )
                && c.host_cap_bytes.is_none()
        })
    }

    fn value(
        &self,
        variable: &Variable,
        lines: &[Line],
        caps: &[SmallestCap],
    ) -> Result<f64, String> {
        let Variable {
            experiment,
            size,
            measure,
        } = variable;
        let Some(line) = self.line(variable, lines) else {
            let at = size.as_ref().map(|size| format!(" at size {size}"));
            return Err(format!(
                "{experiment} was not run{}",
                at.unwrap_or_default()
            ));
        };
        let share = |part: usize, whole: usize| match whole {
            0 => Err(format!("{experiment} was not run")),
            _ => Ok(part as f64 / whole as f64),
        };
        match &**measure {
            "smallest_host_cap_bytes" => {
                let found = caps.iter().find(|found| found.is_of(&line.configuration));
                let smallest = found.and_then(SmallestCap::smallest_bytes);
                return smallest
                    .map(|bytes| bytes as f64)
                    .ok_or_else(|| format!("no smallest host cap of {experiment} was found"));
            }
            "model_bytes" => return Ok(line.model_bytes as f64),
            "largest_tensor_bytes" => return Ok(line.largest_tensor_bytes as f64),
            "verified" => return share(line.verified, line.runs - line.skipped),
            "contract_held" => {
                let held = line.judged_contracts - line.broken_contracts;
                return share(held, line.judged_contracts);
            }
            _ => {}
        }
        let measure = summary::measure(measure).expect("measures are checked");
        if line.is_spoilt(measure.quantity) {
            return Err(only_spoilt(experiment, line, measure.quantity));
        }
        match (line.spread(measure), &line.trouble) {
            (Some(spread), _) => Ok(spread.median),
            (None, Some((status, reason))) => Err(format!("{experiment}: {status}: {reason}")),
            (None, None) => {
                let (name, device) = (measure.name, device_name(self.device, self.driver));
                Err(format!("{name} cannot be measured on {device}"))
            }
        }
    }
}

fn only_spoilt(experiment: &str, line: &Line, quantity: Quantity) -> String {
    let by = line.spoilt_by(quantity).into_iter();
    let by: Vec<&str> = by.map(Spoiling::describe).collect();
    let by = by.join(" and ");
    format!("{experiment} has only runs that are spoilt by {by}")
}

impl Claim {
    /// Whether it speaks of times, which scatter.
    fn is_timed(&self) -> bool {
        self.variables
            .iter()
            .any(|variable| variable.timed().is_some())
    }

    /// Whether its value is known so well that more repeats would not tell it from its limit: it is nearer than sessions are
    /// to one another.
    fn is_too_near(&self, found: Option<Found>) -> bool {
        let Some(interval) = found.and_then(|found| found.interval) else {
            return false;
        };
        let near = |limit: f64| {
            interval.low >= limit / (1.0 + DRIFT_SHARE)
                && interval.high <= limit * (1.0 + DRIFT_SHARE)
        };
        match self.expectation {
            Expectation::About { value, tolerance } => {
                near(value * (1.0 + tolerance)) || near(value * (1.0 - tolerance))
            }
            Expectation::AtMost(limit) | Expectation::AtLeast(limit) => near(limit),
        }
    }
}

impl Variable {
    /// What it measures, where that is a time.
    fn timed(&self) -> Option<Measure> {
        summary::measure(&self.measure).filter(|measure| measure.quantity == Quantity::Time)
    }
}

impl Expectation {
    /// The least and the most that is allowed.
    fn limits(self) -> (f64, f64) {
        match self {
            Expectation::About { value, tolerance } => {
                let apart = tolerance * value.abs();
                (value - apart, value + apart)
            }
            Expectation::AtMost(most) => (f64::NEG_INFINITY, most),
            Expectation::AtLeast(least) => (least, f64::INFINITY),
        }
    }

    /// What it is off by, in words.
    fn off(self, value: f64) -> String {
        let limit = match self {
            Expectation::About { value, .. } => value,
            Expectation::AtMost(limit) | Expectation::AtLeast(limit) => limit,
        };
        match limit {
            0.0 => format!("by {value:.3}"),
            _ => format!("by {:+.1} %", 100.0 * (value / limit - 1.0)),
        }
    }

    fn judge(self, value: f64) -> Finding {
        let (least, most) = self.limits();
        let found = Found {
            value,
            interval: None,
        };
        match (least..=most).contains(&value) {
            true => Finding::Holds(found),
            false => Finding::DoesNotHold(found, self.off(value)),
        }
    }

    /// A time holds or does not where all of its interval does, with what sessions differ by anyway.
    fn judge_time(self, interval: Interval) -> Finding {
        let (least, most) = self.limits();
        let value = interval.centre;
        let found = Found {
            value,
            interval: Some(interval),
        };
        let with_drift = interval.with_drift();
        if with_drift.low >= least && with_drift.high <= most {
            Finding::Holds(found)
        } else if with_drift.high < least || with_drift.low > most {
            Finding::DoesNotHold(found, self.off(value))
        } else {
            let reason =
                "its interval, with what sessions differ by, is on both sides of the limit";
            Finding::Undecided(Some(found), reason.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lab::{Measures, Status};

    use super::*;
    use crate::claims::tests::claims;
    use crate::record::Record;
    use crate::summary::{Spoilt, summarise};

    fn run(experiment: &str, device_peak: Option<u64>) -> Record {
        Record {
            experiment: experiment.to_owned(),
            model: "small".to_owned(),
            device: "vulkan".to_owned(),
            dtype: "f32".to_owned(),
            cache: "warm".to_owned(),
            memory_model: "discrete".to_owned(),
            model_bytes: 100,
            status: Status::Ok,
            verified: true,
            contract_held: Some(device_peak.is_some()),
            measures: Measures {
                device_in_use_peak_bytes: device_peak,
                ..Measures::default()
            }
            .into(),
            ..Record::unmeasured()
        }
    }

    const RATIO: &str =
        "value = '{naive.device_in_use_peak_bytes} / {init-only.device_in_use_peak_bytes}'";

    fn judged(text: &str, records: &[Record]) -> (Verdict, Finding) {
        let claims = claims(text).unwrap();
        let lines = summarise(records, Spoilt::LeftOut);
        let judged = judge(&claims, &lines, &[]);
        (judged[0].verdict(), judged[0].findings[0].finding.clone())
    }

    #[test]
    fn a_claim_holds_within_its_tolerance_and_says_by_how_much_it_does_not() {
        let records = [run("naive", Some(200)), run("init-only", Some(100))];
        let (verdict, _) = judged(
            &format!("{RATIO}\nexpect = 2.05\ntolerance = 0.03"),
            &records,
        );
        assert_eq!(verdict, Verdict::Holds);
        let (verdict, finding) = judged(&format!("{RATIO}\nexpect = 1.6"), &records);
        assert_eq!(verdict, Verdict::DoesNotHold);
        let Finding::DoesNotHold(found, off) = finding else {
            panic!("{finding:?}");
        };
        assert_eq!((found.value, &*off), (2.0, "by +25.0 %"));
        let (verdict, _) = judged(&format!("{RATIO}\nat_most = 1.9\ndiffers = 'so'"), &records);
        assert_eq!(verdict, Verdict::DiffersAsKnown);
        let (verdict, _) = judged(&format!("{RATIO}\nat_least = 2"), &records);
        assert_eq!(verdict, Verdict::Holds);
    }

    #[test]
    fn what_was_not_measured_is_said_to_be_so_with_the_reason() {
        let reason = |text: &str, records: &[Record]| match judged(text, records) {
            (Verdict::NotMeasured, Finding::NotMeasured(reason)) => reason,
            other => panic!("{other:?}"),
        };
        let claim = format!("{RATIO}\nexpect = 2");
        let naive = run("naive", Some(200));
        assert!(reason(&claim, std::slice::from_ref(&naive)).contains("init-only was not run"));
        let absent = [naive.clone(), run("init-only", None)];
        assert!(reason(&claim, &absent).contains("cannot be measured on vulkan"));
        let failed = Record {
            status: Status::Oom,
            reason: Some("too large".to_owned()),
            ..run("init-only", None)
        };
        assert!(reason(&claim, &[naive.clone(), failed]).contains("init-only: oom: too large"));
        let spoilt = Record {
            spoilt_by: vec![Spoiling::Swap],
            ..run("init-only", Some(100))
        };
        assert!(
            reason(&claim, &[naive.clone(), spoilt])
                .contains("only runs that are spoilt by swapping")
        );
        let unified = format!("{claim}\nmemory = 'unified'");
        assert!(reason(&unified, &[naive]).contains("shares the host's memory"));
    }

    #[test]
    fn a_broken_contract_and_wrong_weights_are_claims_that_do_not_hold() {
        let broken = [run("naive", None)];
        let (verdict, _) = judged("value = '{naive.contract_held}'\nexpect = 1", &broken);
        assert_eq!(verdict, Verdict::DoesNotHold);
        let wrong = Record {
            verified: false,
            status: Status::Failed,
            ..run("naive", None)
        };
        let (verdict, _) = judged("value = '{naive.verified}'\nexpect = 1", &[wrong]);
        assert_eq!(verdict, Verdict::DoesNotHold);
    }

    /// Loads of two techniques in so many repeats.
    fn timed(pairs: &[(f64, f64)]) -> Vec<Record> {
        let mut rows = Vec::new();
        for (repeat, &(naive, init)) in (1..).zip(pairs) {
            for (experiment, seconds) in [("naive", naive), ("init-only", init)] {
                let mut row = run(experiment, Some(1));
                row.repeat = repeat;
                Arc::make_mut(&mut row.measures).load_seconds = Some(seconds);
                rows.push(row);
            }
        }
        rows
    }

    const TIMES: &str = "value = '{naive.load_seconds} / {init-only.load_seconds}'";

    #[test]
    fn a_time_holds_or_does_not_where_its_whole_interval_does_and_is_undecided_between() {
        let clear = timed(&[(2.0, 1.0), (2.1, 1.0), (4.0, 2.1)]);
        let verdict = |claim: &str, rows: &[Record]| judged(&format!("{TIMES}\n{claim}"), rows).0;
        assert_eq!(verdict("at_least = 1", &clear), Verdict::Holds);
        assert_eq!(verdict("at_most = 1", &clear), Verdict::DoesNotHold);
        // Off by less than a percent, of two runs: luck.
        let near = timed(&[(1.0, 1.01), (1.0, 0.99)]);
        assert_eq!(verdict("at_least = 1", &near), Verdict::Undecided);
        assert_eq!(verdict("at_least = 1", &clear[..2]), Verdict::Undecided);
        assert_eq!(
            verdict("expect = 2\ntolerance = 0.5", &clear),
            Verdict::Holds
        );
    }

    #[test]
    fn what_is_undecided_names_the_runs_that_would_decide_it_unless_none_would() {
        let wanted = |rows: &[Record]| {
            let claims = claims(&format!("{TIMES}\nat_least = 1")).unwrap();
            let lines = summarise(rows, Spoilt::LeftOut);
            judge(&claims, &lines, &[])[0].findings[0].wanted.clone()
        };
        let mut names: Vec<String> = wanted(&timed(&[(1.0, 1.0)]))
            .into_iter()
            .map(|wanted| wanted.experiment)
            .collect();
        names.sort();
        assert_eq!(names, ["init-only", "naive"]);
        let equal: Vec<(f64, f64)> = (0..20)
            .map(|n| (1.0, 1.0 + 0.001 * f64::from(n % 3)))
            .collect();
        assert!(wanted(&timed(&equal)).is_empty(), "they are the same");
    }

    #[test]
    fn repeats_are_compared_with_themselves_so_that_a_machine_that_slows_down_decides_nothing() {
        // Ten times slower in the last repeat, both of them.
        let drifting = timed(&[(2.0, 1.0), (2.0, 1.0), (20.0, 10.0), (200.0, 100.0)]);
        let (verdict, finding) = judged(&format!("{TIMES}\nat_least = 1.5"), &drifting);
        assert_eq!(verdict, Verdict::Holds, "{finding:?}");
    }
}

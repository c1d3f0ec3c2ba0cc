//! Claims held against the summary: on each device, at each size, dtype and cache state.

use exmex::{Express, FlatEx};

use super::{Claim, Expectation, Memory, Variable};
use crate::smallest_cap::Found;
use crate::summary::{Line, MEASURES};

/// What became of a claim on one device, at one size, dtype and cache state.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    Holds(f64),
    /// With how far it is off, in words.
    DoesNotHold(f64, String),
    /// With the reason.
    NotMeasured(String),
}

/// A claim with everything found of it.
pub struct Judged<'a> {
    pub claim: &'a Claim,
    /// By scene: `vulkan medium f32 warm`.
    pub findings: Vec<(String, Finding)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    DoesNotHold,
    /// As the claim itself says, with the reason.
    DiffersAsKnown,
    NotMeasured,
}

impl Judged<'_> {
    /// It holds where it holds wherever it was measured.
    pub fn verdict(&self) -> Verdict {
        let any = |is: fn(&Finding) -> bool| self.findings.iter().any(|(_, finding)| is(finding));
        if any(|finding| matches!(finding, Finding::DoesNotHold(..))) {
            match self.claim.differs {
                Some(_) => Verdict::DiffersAsKnown,
                None => Verdict::DoesNotHold,
            }
        } else if any(|finding| matches!(finding, Finding::Holds(_))) {
            Verdict::Holds
        } else {
            Verdict::NotMeasured
        }
    }
}

/// Judges each claim on every scene of the results.
pub fn judge<'a>(claims: &'a [Claim], lines: &[Line], caps: &[Found]) -> Vec<Judged<'a>> {
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
            .map(|scene| (scene.title(), scene.find(claim, lines, caps)))
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
            findings.push(("everywhere".to_owned(), Finding::NotMeasured(reason)));
        }
        Judged { claim, findings }
    });
    judged.collect()
}

/// Where a claim can be judged: everything but the experiment, without a host cap.
#[derive(Clone, Copy, PartialEq)]
struct Scene<'a> {
    device: &'a str,
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
            model: &c.model,
            dtype: &c.dtype,
            cache: &c.cache,
            is_unified: line.is_unified,
        }
    }

    fn title(&self) -> String {
        let Scene {
            device,
            model,
            dtype,
            cache,
            ..
        } = self;
        format!("{device} {model} {dtype} {cache}")
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

    fn find(&self, claim: &Claim, lines: &[Line], caps: &[Found]) -> Finding {
        let values = claim.variables.iter();
        let values: Result<Vec<f64>, String> = values
            .map(|variable| self.value(variable, lines, caps))
            .collect();
        let values = match values {
            Ok(values) => values,
            Err(reason) => return Finding::NotMeasured(reason),
        };
        // Parsed before, when the manifest was read.
        let value =
            exmex::parse::<f64>(&claim.value).and_then(|value: FlatEx<f64>| value.eval(&values));
        match value {
            Ok(value) if value.is_finite() => claim.expectation.judge(value),
            Ok(_) => {
                Finding::NotMeasured("its value is no number: a peak of 0 divides it".to_owned())
            }
            Err(error) => Finding::NotMeasured(error.to_string()),
        }
    }

    fn value(&self, variable: &Variable, lines: &[Line], caps: &[Found]) -> Result<f64, String> {
        let Variable {
            experiment,
            size,
            measure,
        } = variable;
        let scene = Scene {
            model: size.as_deref().unwrap_or(self.model),
            ..*self
        };
        let mut of_scene = lines.iter().filter(|line| {
            Scene::of(line) == scene && line.configuration.experiment == *experiment
        });
        if measure == "smallest_host_cap_bytes" {
            let known: Vec<&Line> = of_scene.collect();
            let found = caps
                .iter()
                .find(|found| known.iter().any(|line| found.is_of(&line.configuration)));
            let smallest = found.and_then(Found::smallest_bytes);
            return smallest
                .map(|bytes| bytes as f64)
                .ok_or_else(|| format!("no smallest host cap of {experiment} was found"));
        }
        let Some(line) = of_scene.find(|line| line.configuration.host_cap_bytes.is_none()) else {
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
            "model_bytes" => return Ok(line.model_bytes as f64),
            "largest_tensor_bytes" => return Ok(line.largest_tensor_bytes as f64),
            "verified" => return share(line.verified, line.runs - line.skipped),
            "contract_held" => {
                let held = line.judged_contracts - line.broken_contracts;
                return share(held, line.judged_contracts);
            }
            _ => {}
        }
        if line.is_spoilt {
            let why = line.spoilt_by.as_deref().unwrap_or_default();
            return Err(format!("{experiment} has only runs that are spoilt: {why}"));
        }
        let (_, read) = MEASURES
            .iter()
            .find(|(name, _)| name == measure)
            .expect("measures are checked");
        match (read(line), &line.trouble) {
            (Some(spread), _) => Ok(spread.median),
            (None, Some((status, reason))) => Err(format!("{experiment}: {status}: {reason}")),
            (None, None) => Err(format!("{measure} cannot be measured on {}", self.device)),
        }
    }
}

impl Expectation {
    fn judge(self, value: f64) -> Finding {
        let off = |limit: f64| match limit {
            0.0 => format!("by {value:.3}"),
            _ => format!("by {:+.1} %", 100.0 * (value / limit - 1.0)),
        };
        let (holds, limit) = match self {
            Expectation::About {
                value: expected,
                tolerance,
            } => (
                (value - expected).abs() <= tolerance * expected.abs(),
                expected,
            ),
            Expectation::AtMost(most) => (value <= most, most),
            Expectation::AtLeast(least) => (value >= least, least),
        };
        match holds {
            true => Finding::Holds(value),
            false => Finding::DoesNotHold(value, off(limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use lab::Status;

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
            device_in_use_peak_bytes: device_peak,
            ..Record::unmeasured()
        }
    }

    const RATIO: &str =
        "value = '{naive.device_in_use_peak_bytes} / {init-only.device_in_use_peak_bytes}'";

    fn judged(text: &str, records: &[Record]) -> (Verdict, Finding) {
        let claims = claims(text).unwrap();
        let lines = summarise(records, Spoilt::LeftOut);
        let judged = judge(&claims, &lines, &[]);
        (judged[0].verdict(), judged[0].findings[0].1.clone())
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
        assert_eq!(finding, Finding::DoesNotHold(2.0, "by +25.0 %".to_owned()));
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
            spoilt_by: Some("swap".to_owned()),
            ..run("init-only", Some(100))
        };
        assert!(
            reason(&claim, &[naive.clone(), spoilt]).contains("only runs that are spoilt: swap")
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
}

//! More repeats of what is undecided: claims about time whose interval is on both sides of their limit.

use crate::claims::{Wanted, judge};
use crate::manifest::Manifest;
use crate::plan::Planned;
use crate::record::Record;
use crate::summary::{Spoilt, summarise};

/// No configuration is repeated more often, however long the budget: what so many runs do not decide is too near.
const MOST_REPEATS: u32 = 30;

/// The next pass over the configurations that would decide a claim, interleaved; empty where everything is decided, or more
/// repeats would not help. `planned` are the manifest's own runs.
pub fn next_pass(manifest: &Manifest, planned: &[Planned], records: &[Record]) -> Vec<Planned> {
    let lines = summarise(records, Spoilt::LeftOut);
    let judged = judge(&manifest.claims, &lines, &[]);
    let findings = judged.iter().flat_map(|judged| &judged.findings);
    let wanted: Vec<&Wanted> = findings.flat_map(|finding| &finding.wanted).collect();
    let repeat = 1 + records
        .iter()
        .filter(|record| wanted.iter().any(|wanted| is_of(wanted, record)))
        .map(|record| record.repeat)
        .max()
        .unwrap_or(MOST_REPEATS);
    if repeat > MOST_REPEATS {
        return Vec::new();
    }
    let first = planned.iter().filter(|run| run.repeat == 1);
    let mut pass: Vec<Planned> = first
        .filter(|run| wanted.iter().any(|wanted| would_make(run, wanted)))
        .map(|run| Planned {
            repeat,
            forward_in_software: false,
            ..run.clone()
        })
        .collect();
    fastrand::Rng::with_seed(manifest.seed + u64::from(repeat)).shuffle(&mut pass);
    pass
}

fn is_of(wanted: &Wanted, record: &Record) -> bool {
    record.experiment == wanted.experiment
        && record.model == wanted.model
        && record.device == wanted.device
        && record.dtype == wanted.dtype
        && record.cache == wanted.cache
        && record.host_cap_bytes.is_none()
}

fn would_make(run: &Planned, wanted: &Wanted) -> bool {
    run.technique.name() == wanted.experiment
        && run.size.to_string() == wanted.model
        && run.device.spec.to_string() == wanted.device
        && run.dtype.to_string() == wanted.dtype
        && run.cache.to_string() == wanted.cache
        && run.host_cap_bytes().is_none()
}

#[cfg(test)]
mod tests {
    use lab::{Measures, Status};

    use super::*;

    fn manifest() -> Manifest {
        let text = "[matrix]\nexperiments = ['naive', 'streamed', 'sequential']\nsizes = ['small']\ndevices = ['flex']\n\
            repeats = 2\n[[claims]]\nsentence = 's'\nvalue = '{naive.load_seconds} / {streamed.load_seconds}'\nat_least = 1.5\n";
        Manifest::parse("test".to_owned(), "test.toml", text).unwrap()
    }

    fn rows(ratios: &[f64]) -> Vec<Record> {
        let row = |experiment: &str, repeat, load_seconds| Record {
            experiment: experiment.to_owned(),
            model: "small".to_owned(),
            device: "flex".to_owned(),
            dtype: "f32".to_owned(),
            cache: "warm".to_owned(),
            memory_model: "unified".to_owned(),
            model_bytes: 1,
            repeat,
            status: Status::Ok,
            verified: true,
            measures: Measures {
                load_seconds: Some(load_seconds),
                ..Measures::default()
            }
            .into(),
            ..Record::unmeasured()
        };
        let pairs = (1..).zip(ratios);
        pairs
            .flat_map(|(repeat, ratio)| {
                [row("naive", repeat, *ratio), row("streamed", repeat, 1.0)]
            })
            .collect()
    }

    #[test]
    fn what_is_undecided_is_run_again_and_nothing_else_is() {
        let manifest = manifest();
        let planned = crate::plan::plan(&manifest, &lab::find_devices());
        let names = |ratios: &[f64]| {
            let pass = next_pass(&manifest, &planned, &rows(ratios));
            let mut names: Vec<_> = pass
                .iter()
                .map(|run| (run.technique.name().to_owned(), run.repeat))
                .collect();
            names.sort();
            names
        };
        let again = [("naive".to_owned(), 3), ("streamed".to_owned(), 3)];
        assert_eq!(names(&[1.2, 2.1]), again);
        assert!(names(&[3.0, 3.1, 3.0, 3.05]).is_empty(), "it is decided");
        assert!(names(&[1.2; 30]).is_empty(), "it never ends");
    }
}

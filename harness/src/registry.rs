//! The experiments, as `build.rs` finds them among this crate's dependencies.

use std::sync::LazyLock;

use lab::Registered;

/// Every experiment and every variant of one, in the order of tables and charts.
static EXPERIMENTS: LazyLock<Vec<Registered>> =
    LazyLock::new(|| include!(concat!(env!("OUT_DIR"), "/registry.rs")).concat());

/// What experiments were called before, and are called today.
const FORMER_NAMES: [(&str, &str); 3] = [
    ("floor", "plain-read"),
    ("floor:disk", "plain-read:direct"),
    ("floor:upload", "plain-read:upload"),
];

/// The experiments that this program was built without, each with the feature that brings it.
const LEFT_OUT: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/left_out.rs"));

/// Every experiment and every variant of one, in the order of tables and charts.
pub fn all() -> impl Iterator<Item = &'static Registered> {
    EXPERIMENTS.iter()
}

/// Those that load a model: all but the yardsticks that they are held against.
pub fn techniques() -> impl Iterator<Item = &'static Registered> {
    all().filter(|experiment| !experiment.is_yardstick)
}

/// What an experiment is called today that is recorded, or asked for in a kept manifest, under a former name.
pub fn current_name(name: &str) -> &str {
    let renamed = FORMER_NAMES.iter().find(|(former, _)| *former == name);
    renamed.map_or(name, |(_, current)| current)
}

/// The experiment of this name, or of this former name.
pub fn find(name: &str) -> Option<&'static Registered> {
    let name = current_name(name);
    all().find(|experiment| experiment.name == name)
}

/// The feature that this experiment, or variant of one, needs, where the program was built without it.
pub fn left_out(name: &str) -> Option<&'static str> {
    let experiment = name.split(':').next().unwrap_or(name);
    let mut left_out = LEFT_OUT.iter();
    left_out
        .find(|(known, _)| *known == experiment)
        .map(|(_, feature)| *feature)
}

/// The place of this experiment in tables and charts; behind all others where it is not known here.
pub fn position(name: &str) -> usize {
    let name = current_name(name);
    let position = all().position(|experiment| experiment.name == name);
    position.unwrap_or(EXPERIMENTS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_experiment_has_a_name_of_its_own_and_a_summary() {
        assert!(all().count() >= 7);
        for (position, experiment) in all().enumerate() {
            assert_eq!(
                super::position(experiment.name),
                position,
                "{}",
                experiment.name
            );
            assert!(!experiment.summary.is_empty());
        }
    }

    #[test]
    fn an_experiment_is_called_as_its_crate_but_for_one_whose_name_was_taken() {
        for experiment in all() {
            let name = match experiment.folder {
                // Records call it so; the crate of f16 and bf16 does, too.
                "half-precision" => "half",
                folder => folder,
            };
            assert_eq!(experiment.experiment, name);
        }
    }

    #[test]
    fn a_variant_is_called_after_its_experiment() {
        for experiment in all() {
            let word = experiment.name.strip_prefix(experiment.experiment);
            let is_plain = word == Some("");
            assert!(
                is_plain || word.is_some_and(|word| word.starts_with(':')),
                "{}",
                experiment.name
            );
        }
    }

    #[test]
    fn a_former_name_finds_the_experiment_of_today() {
        for (former, current) in FORMER_NAMES {
            assert_eq!(current_name(former), current);
            assert_eq!(find(former).map(|found| found.name), Some(current));
            assert_eq!(position(former), position(current));
            assert!(all().all(|experiment| experiment.name != former));
        }
        assert_eq!(current_name("streamed"), "streamed");
    }
}

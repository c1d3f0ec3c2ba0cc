//! The experiments, as `build.rs` finds them among this crate's dependencies.

use lab::Registered;

/// Every experiment, in the order of tables and charts.
pub const EXPERIMENTS: &[Registered] = include!(concat!(env!("OUT_DIR"), "/registry.rs"));

/// The experiment of this name.
pub fn find(name: &str) -> Option<&'static Registered> {
    EXPERIMENTS
        .iter()
        .find(|experiment| experiment.name == name)
}

/// The place of this experiment in tables and charts; behind all others where it is not known here.
pub fn position(name: &str) -> usize {
    let position = EXPERIMENTS
        .iter()
        .position(|experiment| experiment.name == name);
    position.unwrap_or(EXPERIMENTS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_experiment_has_a_name_of_its_own_and_a_summary() {
        assert!(EXPERIMENTS.len() >= 7);
        for (position, experiment) in EXPERIMENTS.iter().enumerate() {
            assert_eq!(
                super::position(experiment.name),
                position,
                "{}",
                experiment.name
            );
            assert!(!experiment.summary.is_empty());
        }
    }
}

//! The smallest host cap that a configuration survives in: a search by halves over whole steps of
//! [`step_bytes`], and what was found, read off the recorded probes.

use crate::configuration::Configuration;
use crate::record::Record;
use crate::summary::by_configuration;

/// The resolution: a 64th of the model, in whole MiB so that caps read well, and 8 MiB at least.
pub fn step_bytes(model_bytes: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    (model_bytes / 64 / MIB).max(8) * MIB
}

/// A search. It needs to be told, of each cap it names, whether the run survived. It begins at a guess, goes away
/// from it in steps that double until it has a cap that suffices and one that does not, and halves what lies
/// between: a good guess takes three runs.
#[derive(Debug, Clone)]
pub struct Search {
    step_bytes: u64,
    /// In steps: the largest cap known to be too small. Nothing survives without memory.
    too_small: u64,
    /// In steps: the smallest cap known to suffice.
    suffices: Option<u64>,
    /// In steps: tried first.
    guess: u64,
    /// In steps: how far the next cap is from the last, while one side is not known.
    stride: u64,
    /// In steps: nothing above is tried.
    most: u64,
}

impl Search {
    /// A search that begins at `guess_bytes`, and never asks for more than `most_bytes`.
    pub fn new(model_bytes: u64, guess_bytes: u64, most_bytes: u64) -> Search {
        let step_bytes = step_bytes(model_bytes);
        let most = (most_bytes / step_bytes).max(1);
        Search {
            step_bytes,
            too_small: 0,
            suffices: None,
            guess: guess_bytes.div_ceil(step_bytes).clamp(1, most),
            stride: 1,
            most,
        }
    }

    /// The cap to try next; `None` when the search is over.
    pub fn next_bytes(&self) -> Option<u64> {
        let steps = match (self.too_small, self.suffices) {
            (0, None) => self.guess,
            (too_small, None) if too_small >= self.most => return None,
            (too_small, None) => (too_small + self.stride).min(self.most),
            (too_small, Some(suffices)) if suffices - too_small <= 1 => return None,
            (0, Some(suffices)) => suffices.saturating_sub(self.stride).max(1),
            (too_small, Some(suffices)) => too_small.midpoint(suffices),
        };
        Some(steps * self.step_bytes)
    }

    /// Learns whether the run survived in this cap.
    pub fn learn(&mut self, cap_bytes: u64, survived: bool) {
        let steps = cap_bytes / self.step_bytes;
        if steps != self.guess {
            self.stride *= 2;
        }
        match survived {
            true => self.suffices = Some(steps),
            false => self.too_small = steps,
        }
    }
}

/// What the probes of one configuration say.
#[derive(Debug, Clone)]
pub struct Found {
    /// Without a cap.
    pub configuration: Configuration,
    /// What the device is, and what drives it, where the record tells.
    pub driver: Option<String>,
    pub model_bytes: u64,
    /// Peak resident memory of a run without a cap: what the study would have told.
    pub uncapped_rss_peak_bytes: Option<u64>,
    /// Of each repeat: the smallest cap survived, where there was one.
    pub smallest_of_repeats_bytes: Vec<Option<u64>>,
    /// Whether the runs in the smallest cap that every repeat survived lived by reclaim.
    pub is_by_reclaim: bool,
    /// The largest cap too small, and how the run ended there.
    pub too_small: Option<(u64, String)>,
    pub probes: usize,
}

impl Found {
    /// Whether it is of this configuration, whatever its cap.
    pub fn is_of(&self, configuration: &Configuration) -> bool {
        let uncapped = Configuration {
            host_cap_bytes: None,
            ..configuration.clone()
        };
        self.configuration == uncapped
    }

    /// The smallest cap that every repeat survived.
    pub fn smallest_bytes(&self) -> Option<u64> {
        let all: Option<Vec<u64>> = self.smallest_of_repeats_bytes.iter().copied().collect();
        all?.into_iter().max()
    }

    /// How far repeats are apart, in bytes.
    pub fn spread_bytes(&self) -> Option<u64> {
        let all: Option<Vec<u64>> = self.smallest_of_repeats_bytes.iter().copied().collect();
        let all = all?;
        Some(all.iter().max()? - all.iter().min()?)
    }
}

/// Reads off the records what each configuration survived in, in the order of their first probe.
pub fn found(records: &[Record]) -> Vec<Found> {
    let by_cap = by_configuration(records);
    let mut found: Vec<Found> = Vec::new();
    for (configuration, rows) in &by_cap {
        if configuration.host_cap_bytes.is_none() || found.iter().any(|f| f.is_of(configuration)) {
            continue;
        }
        let uncapped = Configuration {
            host_cap_bytes: None,
            ..configuration.clone()
        };
        let is_probe = |c: &Configuration| {
            c.host_cap_bytes.is_some()
                && Configuration {
                    host_cap_bytes: None,
                    ..c.clone()
                } == uncapped
        };
        let probes: Vec<&Record> = by_cap
            .iter()
            .filter(|(c, _)| is_probe(c))
            .flat_map(|(_, rows)| rows.iter().copied())
            .collect();
        let mut repeats: Vec<u32> = probes.iter().map(|row| row.repeat).collect();
        repeats.sort_unstable();
        repeats.dedup();
        let smallest = |repeat: u32| {
            let survived = probes
                .iter()
                .filter(|row| row.repeat == repeat && row.is_measured());
            survived.filter_map(|row| row.host_cap_bytes).min()
        };
        let free = by_cap.iter().find(|(c, _)| *c == uncapped);
        let free = free.into_iter().flat_map(|(_, rows)| rows.iter());
        let died = probes.iter().filter(|row| !row.is_measured());
        let too_small = died.max_by_key(|row| row.host_cap_bytes);
        let smallest_of_repeats_bytes: Vec<Option<u64>> =
            repeats.iter().map(|&repeat| smallest(repeat)).collect();
        let smallest_of_all = smallest_of_repeats_bytes.iter().max().copied().flatten();
        let mut at_smallest = probes
            .iter()
            .filter(|row| row.is_measured() && row.host_cap_bytes == smallest_of_all);
        found.push(Found {
            is_by_reclaim: at_smallest.any(|row| {
                let lived = smallest_of_all.and_then(|cap| row.measures.lived_by_reclaim(cap));
                lived == Some(true)
            }),
            driver: rows[0].driver.clone(),
            model_bytes: rows[0].model_bytes,
            uncapped_rss_peak_bytes: free
                .filter(|row| row.is_measured())
                .filter_map(|row| row.measures.host_rss_peak_bytes)
                .max(),
            smallest_of_repeats_bytes,
            too_small: too_small.and_then(|row| {
                let reason = row.reason.clone().unwrap_or_default();
                Some((row.host_cap_bytes?, format!("{}: {reason}", row.status)))
            }),
            probes: probes.len(),
            configuration: uncapped,
        });
    }
    found.sort_by_cached_key(|found| {
        let c = &found.configuration;
        let place = crate::registry::position(&c.experiment);
        (c.device.clone(), found.model_bytes, c.cache.clone(), place)
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Searches where everything from `need_bytes` on suffices, and counts the probes.
    fn search(model_bytes: u64, guess_bytes: u64, need_bytes: u64) -> (Option<u64>, usize) {
        let mut search = Search::new(model_bytes, guess_bytes, 64 * model_bytes);
        let (mut smallest, mut probes) = (None, 0);
        while let Some(cap) = search.next_bytes() {
            probes += 1;
            let survived = cap >= need_bytes;
            if survived {
                smallest = Some(smallest.unwrap_or(cap).min(cap));
            }
            search.learn(cap, survived);
        }
        (smallest, probes)
    }

    #[test]
    fn the_smallest_cap_is_found_within_a_step_wherever_it_lies() {
        let model = 1024 * MIB;
        let step = step_bytes(model);
        assert_eq!(step, 16 * MIB);
        for need in [
            1,
            step,
            step + 1,
            model / 2,
            model,
            2 * model,
            3 * model + 5,
        ] {
            for guess in [step, model, 2 * model, 8 * model] {
                let (smallest, probes) = search(model, guess, need);
                let smallest = smallest.unwrap();
                assert!(smallest >= need && smallest - need < step, "{need} {guess}");
                assert!(probes <= 20, "{probes} probes for {need} from {guess}");
            }
        }
    }

    #[test]
    fn a_good_guess_takes_few_runs() {
        let model = 1024 * MIB;
        let need = model + 5 * MIB;
        for guess in [need, need - 8 * MIB, need + 8 * MIB] {
            let (_, probes) = search(model, guess, need);
            assert!(probes <= 3, "{probes} probes from {guess}");
        }
    }

    #[test]
    fn a_search_that_nothing_satisfies_ends() {
        let (smallest, probes) = search(1024 * MIB, 1024 * MIB, u64::MAX);
        assert_eq!(smallest, None);
        assert!(probes < 16, "{probes} probes");
    }

    #[test]
    fn small_models_are_searched_in_steps_of_eight_mebibytes() {
        assert_eq!(step_bytes(1), 8 * MIB);
        assert_eq!(step_bytes(6552 * MIB), 102 * MIB);
    }
}

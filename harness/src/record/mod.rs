//! The record of a run: one row of `runs.csv`.

mod former;
mod table;

use std::sync::Arc;

use lab::{Measures, Outcome, Spoiling, Status, Tuned, columns};
use meter::CapMechanism;

pub use table::{Dropped, Rows, SCHEMA_FILE, as_json, columns_of, dictionary, read, write_row};

/// Raised when columns come, go, or change their meaning.
pub const SCHEMA: u32 = 6;

columns! {
    /// One run: what it was, how it ended, and what was measured of it.
    #[derive(Debug, Clone)]
    pub struct Record {
        /// The version of these columns.
        schema: u32 = Count, Given, 1;
        /// Names the run among all: its configuration, its manifest, its repeat and the code that made it.
        run_id: String = Text, Given, 1;
        /// The manifest's name.
        manifest: String = Text, Given, 1;
        /// SHA-256 of the manifest's text.
        manifest_sha256: String = Text, Given, 1;
        /// The commit of the code.
        commit: Option<String> = Text, Given, 1;
        /// Whether the sources differed from the commit.
        dirty: Option<bool> = Boolean, Given, 1;
        /// When the run began: RFC 3339, UTC.
        started_at: String = Text, Given, 1;
        /// The machine.
        machine: String = Text, Given, 1;
        /// The device, as manifests name it.
        device: String = Text, Given, 1;
        /// What the device is, and what drives it. A software or simulated one is called so.
        driver: Option<String> = Text, Given, 4;
        /// Burn's backend.
        backend: String = Text, Given, 1;
        /// Whose memory the tensors lie in: `discrete` is the device's own, `unified` the host's.
        memory_model: String = Text, Given, 1;
        /// The technique.
        experiment: String = Text, Given, 1;
        /// What loaded: a framework and its version.
        framework: Option<String> = Text, Given, 3;
        /// The model's size.
        model: String = Text, Given, 1;
        /// The dtype of the checkpoint.
        dtype: String = Text, Given, 1;
        /// The checkpoint's format, where one was read.
        format: Option<String> = Text, Given, 1;
        /// Which weights: the digest of the tensors' digests, or how they were made.
        checkpoint: Option<String> = Text, Given, 2;
        /// Parameters of the model.
        parameters: u64 = Count, Given, 1;
        /// The parameters' bytes at the checkpoint's dtype: what peaks are multiples of.
        model_bytes: u64 = Bytes, Given, 1;
        /// Bytes of the checkpoint's largest tensor.
        largest_tensor_bytes: u64 = Bytes, Given, 1;
        /// State of the page cache before the load: `warm` or `cold`.
        cache: String = Text, Given, 1;
        /// Host memory that the run could use above its baseline.
        host_cap_bytes: Option<u64> = Bytes, Given, 1;
        /// What enforced that.
        host_cap_mechanism: Option<CapMechanism> = Text, Given, 2;
        /// What may be on its way to a device at once, where the technique heeds it.
        staging_bytes: Option<u64> = Bytes, Given, 4;
        /// Threads that read, where the technique heeds it.
        threads: Option<u64> = Count, Given, 4;
        /// Reads in flight, where the technique heeds it.
        queue_depth: Option<u64> = Count, Given, 4;
        /// Layers on the device at once, where the technique streams them.
        resident_layers: Option<u64> = Count, Given, 4;
        /// Which repeat of its configuration: runs of one repeat were made interleaved.
        repeat: u32 = Count, Given, 1;
        /// How it ended: `ok`, `failed`, `oom`, `timeout`, `skipped`.
        status: Status = Text, Exact, 1;
        /// Why it ended so, where it did not end well.
        reason: Option<String> = Text, Exact, 1;
        /// Whether every parameter and, where forward ran, the logits were found right.
        verified: bool = Boolean, Exact, 1;
        /// By what it was found right: what parameters and logits were compared with. `own forward` is of this program's own
        /// reading of the checkpoint; `given logits` were computed by another program.
        verified_by: Option<String> = Text, Exact, 5;
        /// Whether the exact peaks were within the technique's memory contract.
        contract_held: Option<bool> = Boolean, Computed, 1;
        /// What spoilt its numbers: codes, with spaces between.
        spoilt_by: Vec<Spoiling> = Text, Computed, 2;
    }
    beside {
        /// What was measured. Shared, for a record may have a million rows.
        measures: Arc<Measures>,
    }
}

impl Record {
    /// A row with nothing in it yet.
    pub fn unmeasured() -> Record {
        Record {
            schema: SCHEMA,
            run_id: String::new(),
            manifest: String::new(),
            manifest_sha256: String::new(),
            commit: None,
            dirty: None,
            started_at: String::new(),
            machine: String::new(),
            device: String::new(),
            driver: None,
            backend: String::new(),
            memory_model: String::new(),
            experiment: String::new(),
            framework: None,
            model: String::new(),
            dtype: String::new(),
            format: None,
            checkpoint: None,
            parameters: 0,
            model_bytes: 0,
            largest_tensor_bytes: 0,
            cache: String::new(),
            host_cap_bytes: None,
            host_cap_mechanism: None,
            staging_bytes: None,
            threads: None,
            queue_depth: None,
            resident_layers: None,
            repeat: 0,
            status: Status::Failed,
            reason: None,
            verified: false,
            verified_by: None,
            contract_held: None,
            spoilt_by: Vec::new(),
            measures: Arc::default(),
        }
    }

    /// Copies what was measured, and weighs what disturbed it.
    pub fn fill(&mut self, outcome: &Outcome) {
        self.status = outcome.status;
        self.reason = outcome.reason.as_deref().map(one_line);
        self.verified = outcome.verified;
        self.verified_by = outcome.verified_by.map(|by| by.to_string());
        let mut measures = outcome.measures.clone();
        let to = |value: Option<f64>, steps| value.map(|value| round(value, steps));
        measures.resident_fraction = to(measures.resident_fraction, 1e4);
        for seconds in [
            &mut measures.load_seconds,
            &mut measures.first_forward_seconds,
            &mut measures.disk_wait_seconds,
            &mut measures.stolen_seconds,
            &mut measures.throttled_seconds,
        ] {
            *seconds = to(*seconds, 1e6);
        }
        self.contract_held = measures.contract_held();
        self.spoilt_by = Spoiling::of(&measures, self.waits_for_disk());
        self.measures = Arc::new(measures);
        if self.dirty == Some(true) {
            self.spoilt_by.push(Spoiling::Dirty);
        }
    }

    /// From a cold cache, and under a cap, a run is meant to wait for the disk.
    fn waits_for_disk(&self) -> bool {
        self.cache != "warm" || self.host_cap_bytes.is_some()
    }

    /// Whether its numbers may be shown at all.
    pub fn is_measured(&self) -> bool {
        self.status == Status::Ok && self.verified
    }

    /// What of the manifest's tuning the technique heeded.
    pub fn tuned(&self) -> Tuned {
        Tuned {
            staging_bytes: self.staging_bytes,
            threads: self.threads,
            queue_depth: self.queue_depth,
            resident_layers: self.resident_layers,
        }
    }

    /// Notes what of the manifest's tuning the technique heeds.
    pub fn tune(&mut self, tuned: Tuned) {
        self.staging_bytes = tuned.staging_bytes;
        self.threads = tuned.threads;
        self.queue_depth = tuned.queue_depth;
        self.resident_layers = tuned.resident_layers;
    }
}

/// So that a row is a line, and no book, whatever a driver said.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    checkpoint::cut(&line, 4096)
}

/// `value` to one part in `steps`.
pub fn round(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_line_and_a_dirty_tree_is_told_in_it() {
        let mut record = Record {
            dirty: Some(true),
            ..Record::unmeasured()
        };
        let mut outcome = Outcome::ended(Status::Failed, "a driver\nsays\r\n  much");
        outcome.measures.swap_peak_bytes = Some(4096);
        record.fill(&outcome);
        assert_eq!(record.reason.as_deref(), Some("a driver says much"));
        assert_eq!(record.spoilt_by, [Spoiling::Swap, Spoiling::Dirty]);
    }
}

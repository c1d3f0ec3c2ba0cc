//! The record of a run: one row of `runs.csv`.

use lab::{CapMechanism, Outcome, Status};
use serde::{Deserialize, Serialize};

/// Raised when columns come, go, or change their meaning.
pub const SCHEMA: u32 = 3;

/// One run. The fields are the columns of `runs.csv`, in this order: integer bytes, seconds, empty for
/// what could not be measured. The last ones came with later schemas, and are empty in records of earlier ones.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub schema: u32,
    pub run_id: String,
    pub manifest: String,
    pub manifest_sha256: String,
    pub commit: Option<String>,
    pub dirty: Option<bool>,
    pub started_at: String,
    pub machine: String,
    pub device: String,
    pub backend: String,
    pub memory_model: String,
    pub experiment: String,
    pub model: String,
    pub dtype: String,
    pub format: Option<String>,
    pub parameters: u64,
    pub model_bytes: u64,
    pub largest_tensor_bytes: u64,
    pub cache: String,
    pub resident_fraction: Option<f64>,
    pub host_cap_bytes: Option<u64>,
    pub repeat: u32,
    pub status: Status,
    pub reason: Option<String>,
    pub verified: bool,
    pub load_seconds: Option<f64>,
    pub first_forward_seconds: Option<f64>,
    pub host_heap_peak_bytes: Option<u64>,
    pub host_rss_peak_bytes: Option<u64>,
    pub host_anon_peak_bytes: Option<u64>,
    pub host_file_peak_bytes: Option<u64>,
    pub host_peak_phase: Option<String>,
    pub device_in_use_peak_bytes: Option<u64>,
    pub device_reserved_peak_bytes: Option<u64>,
    pub device_driver_peak_bytes: Option<u64>,
    pub device_peak_phase: Option<String>,
    pub bytes_read: Option<u64>,
    pub host_contract_bytes: Option<u64>,
    pub device_contract_bytes: Option<u64>,
    pub contract_held: Option<bool>,
    #[serde(default)]
    pub host_rss_baseline_bytes: Option<u64>,
    #[serde(default)]
    pub host_cgroup_peak_bytes: Option<u64>,
    #[serde(default)]
    pub host_cap_mechanism: Option<CapMechanism>,
    #[serde(default)]
    pub device_pool_used_peak_bytes: Option<u64>,
    #[serde(default)]
    pub device_pool_reserved_peak_bytes: Option<u64>,
    #[serde(default)]
    pub major_faults: Option<u64>,
    /// What may have spoilt the numbers, in words.
    #[serde(default)]
    pub spoilt_by: Option<String>,
    /// Which weights: the digest of the tensors' digests, or how they were made.
    #[serde(default)]
    pub checkpoint: Option<String>,
    /// What the technique worked with, of the manifest's `[tuning]`.
    #[serde(default)]
    pub tuning: Option<String>,
    /// What loaded it: a framework and its version.
    #[serde(default)]
    pub framework: Option<String>,
    #[serde(default)]
    pub logits_error: Option<f64>,
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
            backend: String::new(),
            memory_model: String::new(),
            experiment: String::new(),
            model: String::new(),
            dtype: String::new(),
            format: None,
            parameters: 0,
            model_bytes: 0,
            largest_tensor_bytes: 0,
            cache: String::new(),
            resident_fraction: None,
            host_cap_bytes: None,
            repeat: 0,
            status: Status::Failed,
            reason: None,
            verified: false,
            load_seconds: None,
            first_forward_seconds: None,
            host_heap_peak_bytes: None,
            host_rss_peak_bytes: None,
            host_anon_peak_bytes: None,
            host_file_peak_bytes: None,
            host_peak_phase: None,
            device_in_use_peak_bytes: None,
            device_reserved_peak_bytes: None,
            device_driver_peak_bytes: None,
            device_peak_phase: None,
            bytes_read: None,
            host_contract_bytes: None,
            device_contract_bytes: None,
            contract_held: None,
            host_rss_baseline_bytes: None,
            host_cgroup_peak_bytes: None,
            host_cap_mechanism: None,
            device_pool_used_peak_bytes: None,
            device_pool_reserved_peak_bytes: None,
            major_faults: None,
            spoilt_by: None,
            checkpoint: None,
            tuning: None,
            framework: None,
            logits_error: None,
        }
    }

    /// Copies what was measured.
    pub fn fill(&mut self, outcome: &Outcome) {
        self.status = outcome.status;
        self.reason = outcome.reason.as_deref().map(one_line);
        self.verified = outcome.verified;
        self.resident_fraction = outcome.resident_fraction.map(|value| round(value, 1e4));
        self.load_seconds = outcome.load_seconds.map(|value| round(value, 1e6));
        self.first_forward_seconds = outcome.first_forward_seconds.map(|value| round(value, 1e6));
        self.logits_error = outcome.logits_error;
        self.host_heap_peak_bytes = outcome.host_heap_peak_bytes;
        self.host_rss_peak_bytes = outcome.host_rss_peak_bytes;
        self.host_anon_peak_bytes = outcome.host_anon_peak_bytes;
        self.host_file_peak_bytes = outcome.host_file_peak_bytes;
        self.host_peak_phase.clone_from(&outcome.host_peak_phase);
        self.device_in_use_peak_bytes = outcome.device_in_use_peak_bytes;
        self.device_reserved_peak_bytes = outcome.device_reserved_peak_bytes;
        self.device_driver_peak_bytes = outcome.device_driver_peak_bytes;
        self.device_peak_phase
            .clone_from(&outcome.device_peak_phase);
        self.bytes_read = outcome.bytes_read;
        self.host_contract_bytes = outcome.host_contract_bytes;
        self.device_contract_bytes = outcome.device_contract_bytes;
        self.contract_held = outcome.contract_held();
        self.host_rss_baseline_bytes = outcome.host_rss_baseline_bytes;
        self.host_cgroup_peak_bytes = outcome.host_cgroup_peak_bytes;
        self.device_pool_used_peak_bytes = outcome.device_pool_used_peak_bytes;
        self.device_pool_reserved_peak_bytes = outcome.device_pool_reserved_peak_bytes;
        self.major_faults = outcome.major_faults;
        let mut spoilt_by = outcome.spoilt_by.clone();
        if self.dirty == Some(true) {
            spoilt_by.push("the sources differed from the commit".to_owned());
        }
        self.spoilt_by = (!spoilt_by.is_empty()).then(|| one_line(&spoilt_by.join("; ")));
    }

    /// Whether its numbers may be shown at all.
    pub fn is_measured(&self) -> bool {
        self.status == Status::Ok && self.verified
    }
}

/// So that a row is a line, whatever a driver said.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `value` to one part in `steps`.
pub fn round(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_stand_in_the_order_that_is_documented() {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.serialize(Record::unmeasured()).unwrap();
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let expected = "schema,run_id,manifest,manifest_sha256,commit,dirty,started_at,machine,device,\
            backend,memory_model,experiment,model,dtype,format,parameters,model_bytes,\
            largest_tensor_bytes,cache,resident_fraction,host_cap_bytes,repeat,status,reason,verified,\
            load_seconds,first_forward_seconds,host_heap_peak_bytes,host_rss_peak_bytes,\
            host_anon_peak_bytes,host_file_peak_bytes,host_peak_phase,device_in_use_peak_bytes,\
            device_reserved_peak_bytes,device_driver_peak_bytes,device_peak_phase,bytes_read,\
            host_contract_bytes,device_contract_bytes,contract_held,\
            host_rss_baseline_bytes,host_cgroup_peak_bytes,host_cap_mechanism,\
            device_pool_used_peak_bytes,device_pool_reserved_peak_bytes,major_faults,spoilt_by,checkpoint,tuning,framework,logits_error";
        assert_eq!(text.lines().next(), Some(expected));
    }

    #[test]
    fn a_row_is_one_line_and_a_dirty_tree_is_told_in_it() {
        let mut record = Record {
            dirty: Some(true),
            ..Record::unmeasured()
        };
        let mut outcome = Outcome::ended(Status::Failed, "a driver\nsays\r\n  much");
        outcome.spoilt_by = vec!["swap".to_owned()];
        record.fill(&outcome);
        assert_eq!(record.reason.as_deref(), Some("a driver says much"));
        assert_eq!(
            record.spoilt_by.as_deref(),
            Some("swap; the sources differed from the commit")
        );
    }
}

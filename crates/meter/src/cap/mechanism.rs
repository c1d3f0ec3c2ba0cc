//! What enforces a host cap.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a cap is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CapMechanism {
    /// The memory controller of cgroup v2.
    #[serde(rename = "cgroup-v2")]
    CgroupV2,
    /// The memory controller of cgroup v1.
    #[serde(rename = "cgroup-v1")]
    CgroupV1,
    /// `RLIMIT_DATA`.
    #[serde(rename = "rlimit-data")]
    DataLimit,
}

impl CapMechanism {
    /// Every mechanism, the best first.
    pub const ALL: [CapMechanism; 3] = [
        CapMechanism::CgroupV2,
        CapMechanism::CgroupV1,
        CapMechanism::DataLimit,
    ];

    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            CapMechanism::CgroupV2 => "cgroup-v2",
            CapMechanism::CgroupV1 => "cgroup-v1",
            CapMechanism::DataLimit => "rlimit-data",
        }
    }

    /// What counts against the cap, and what does not.
    pub const fn counts(self) -> &'static str {
        match self {
            CapMechanism::CgroupV2 | CapMechanism::CgroupV1 => {
                "counts every touched page of the run, file pages included, which are taken back before the run \
                 is ended; not what is reserved and never touched"
            }
            CapMechanism::DataLimit => {
                "counts private writable memory when it is asked for, touched or not; neither file pages nor \
                 shared memory"
            }
        }
    }
}

impl fmt::Display for CapMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mechanism_has_the_same_name_in_records_and_in_print() {
        for mechanism in CapMechanism::ALL {
            let json = serde_json::to_string(&mechanism).unwrap();
            assert_eq!(json, format!("\"{mechanism}\""));
        }
    }
}

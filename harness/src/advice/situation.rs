//! What somebody has, and wants to load.

use std::fmt;

use checkpoint::Dtype;
use gpt2::Size;
use lab::{DeviceSpec, MemoryModel};
use serde::{Serialize, Serializer};

use crate::units;

/// See the module's documentation.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Situation {
    #[serde(serialize_with = "as_text")]
    pub size: Size,
    pub dtype: Dtype,
    #[serde(serialize_with = "as_name")]
    pub memory: MemoryModel,
    /// The device, where one is named.
    #[serde(serialize_with = "as_optional_text")]
    pub device: Option<DeviceSpec>,
    /// Whether the device is the CPU posing as a GPU; its memory is the host's, then.
    pub is_software: bool,
    /// What is free of the host's memory; `None` where that does not matter.
    pub host_bytes: Option<u64>,
    /// What is free of the device's; `None` where that is not known.
    pub device_bytes: Option<u64>,
}

fn as_text<S: Serializer>(value: &impl fmt::Display, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(value)
}

fn as_optional_text<S: Serializer>(
    value: &Option<impl fmt::Display>,
    out: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => out.collect_str(value),
        None => out.serialize_none(),
    }
}

fn as_name<S: Serializer>(memory: &MemoryModel, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(memory.name())
}

impl Situation {
    /// `xl (6.10 GiB, f32) into the host's memory (flex)`. `device_name` is the device's, where it is known.
    pub fn title(&self, device_name: Option<&str>) -> String {
        let config = self.size.config();
        let bytes = units::bytes(config.parameters() * self.dtype.bytes());
        let to = match (self.memory, device_name, self.device) {
            (MemoryModel::Unified, ..) => "into the host's memory (flex)".to_owned(),
            (_, Some(name), _) => format!("to {name}"),
            (_, None, Some(device)) => format!("to {device}"),
            (_, None, None) => "to a device with memory of its own".to_owned(),
        };
        format!("{} ({bytes}, {}) {to}", self.size, self.dtype)
    }
}

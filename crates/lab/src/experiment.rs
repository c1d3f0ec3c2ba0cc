//! The contract of an experiment.

use checkpoint::Dtype;
use gpt2::{Config, Gpt2};

use crate::{Error, Outcome, Platform, Run, RunSpec, worker};

/// A loading technique: one crate, one implementation.
///
/// The crate `experiments/my-technique` exports a unit type `MyTechnique` that implements this. A
/// dependency line in `harness/Cargo.toml` registers it; everything else (the list, the plan, the
/// table, the charts, the catalogue in the README) follows from the declarations below.
pub trait Experiment: 'static {
    /// Kebab-case, the name of the crate.
    const NAME: &'static str;
    /// One sentence for the catalogue, without a full stop.
    const SUMMARY: &'static str;
    /// What it needs on disk.
    const READS: Reads = Reads::StateDict;

    /// The peaks that it promises. A measured peak above them is a broken contract.
    fn contract(memory: MemoryModel, size: Footprint) -> Contract;

    /// Whether it makes sense on such a device; the reason where it does not.
    ///
    /// # Errors
    ///
    /// The reason, for a person.
    fn applies(memory: MemoryModel) -> Result<(), &'static str> {
        let _ = memory;
        Ok(())
    }

    /// Loads the model. Only this is measured.
    ///
    /// # Errors
    ///
    /// Whatever kept the model from being loaded.
    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error>;
}

/// What an experiment reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// A whole state dict in one file: safetensors or `.pth`, as the manifest says.
    StateDict,
    /// A folder with a file for each tensor.
    PerTensor,
    /// No checkpoint: the model keeps its initial weights, and is verified against their distribution.
    Nothing,
}

/// Whose memory the tensors of a device lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryModel {
    /// In memory of its own. Mesa's software Vulkan counts as such: its buffers are device memory, though
    /// they lie in RAM.
    Discrete,
    /// In the host's memory: the host peak is the whole truth.
    Unified,
}

impl MemoryModel {
    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            MemoryModel::Discrete => "discrete",
            MemoryModel::Unified => "unified",
        }
    }
}

/// The sizes that a memory contract is a function of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// All parameters, at the dtype loaded.
    pub model_bytes: u64,
    /// The largest tensor of the checkpoint, at the dtype loaded.
    pub largest_tensor_bytes: u64,
    /// The largest part of a tensor that is uploaded at once: the largest tensor, or a row shard where
    /// the device's limit asks for shards.
    pub largest_shard_bytes: u64,
}

impl Footprint {
    /// The footprint of a model of these dimensions. `max_tensor_bytes` is the device's limit.
    pub fn new(config: &Config, dtype: Dtype, max_tensor_bytes: Option<u64>) -> Footprint {
        let largest_tensor_bytes = config.largest_tensor_elements() * dtype.bytes();
        let limit = max_tensor_bytes.unwrap_or(u64::MAX).max(1);
        let row_bytes = config.embedding as u64 * dtype.bytes();
        let rows = largest_tensor_bytes / row_bytes;
        let shards = rows.div_ceil((limit / row_bytes).clamp(1, rows));
        Footprint {
            model_bytes: config.parameters() * dtype.bytes(),
            largest_tensor_bytes,
            largest_shard_bytes: rows.div_ceil(shards) * row_bytes,
        }
    }

    /// What Burn 0.21 holds on the host while one tensor goes to a discrete device: the data, and two
    /// copies of it (`ComputeClient::do_create` in cubecl-runtime 0.10).
    pub fn upload_bytes(&self) -> u64 {
        3 * self.largest_shard_bytes
    }
}

/// The peaks that an experiment promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contract {
    /// Host heap above the baseline, as the counting allocator sees it.
    pub host_heap_bytes: u64,
    /// Device memory in use above the baseline; `None` on unified memory.
    pub device_bytes: Option<u64>,
}

impl Contract {
    /// What any run may use beside tensors: the index of the checkpoint, names, buffers of the runtime.
    pub const HOST_CONSTANT_BYTES: u64 = 16 << 20;
    /// Alignment of the device's allocations, and the little the runtime keeps there.
    pub const DEVICE_CONSTANT_BYTES: u64 = 8 << 20;

    /// A contract for a device with memory of its own.
    pub fn discrete(host_tensor_bytes: u64, device_tensor_bytes: u64) -> Contract {
        Contract {
            host_heap_bytes: host_tensor_bytes + Self::HOST_CONSTANT_BYTES,
            device_bytes: Some(device_tensor_bytes + Self::DEVICE_CONSTANT_BYTES),
        }
    }

    /// A contract for a device that shares the host's memory.
    pub fn unified(host_tensor_bytes: u64) -> Contract {
        Contract {
            host_heap_bytes: host_tensor_bytes + Self::HOST_CONSTANT_BYTES,
            device_bytes: None,
        }
    }
}

/// An experiment as a value, for lists.
#[derive(Clone, Copy)]
pub struct Registered {
    /// [`Experiment::NAME`].
    pub name: &'static str,
    /// [`Experiment::SUMMARY`].
    pub summary: &'static str,
    /// [`Experiment::READS`].
    pub reads: Reads,
    /// [`Experiment::contract`].
    pub contract: fn(MemoryModel, Footprint) -> Contract,
    /// [`Experiment::applies`].
    pub applies: fn(MemoryModel) -> Result<(), &'static str>,
    /// One run of it, in this process: see [`worker`].
    pub execute: fn(&RunSpec) -> Outcome,
}

impl Registered {
    /// The experiment `E`.
    pub const fn of<E: Experiment>() -> Registered {
        Registered {
            name: E::NAME,
            summary: E::SUMMARY,
            reads: E::READS,
            contract: E::contract,
            applies: E::applies,
            execute: worker::execute::<E>,
        }
    }
}

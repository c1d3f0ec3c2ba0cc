//! The contract of an experiment.

use checkpoint::{Dtype, Format};
use gpt2::{Config, Gpt2};

use crate::quantise::block_elements;
use crate::{
    BackendKind, Error, Outcome, Platform, Run, RunSpec, Task, Tell, Tunable, Tuning, usage, worker,
};

/// A loading technique: one crate, one implementation.
///
/// The crate `experiments/my-technique` exports a unit type `MyTechnique` that implements this. A
/// dependency line in `harness/Cargo.toml` registers it; everything else (the list, the plan, the
/// table, the charts, the catalogue in the README) follows from the declarations below. A technique needs
/// the name, the summary, the contract and `load`; the rest has the defaults of a plain one.
pub trait Experiment: 'static {
    /// Kebab-case: the name in manifests and records, and the crate's, where no other crate has it.
    const NAME: &'static str;
    /// One sentence for the catalogue, without a full stop.
    const SUMMARY: &'static str;
    /// Other ways to do the same, told apart by [`Run::variant`]; each stands in tables and charts of its own.
    const VARIANTS: &'static [Variant] = &[];
    /// What it needs on disk.
    const READS: Reads = Reads::StateDict;
    /// What of the manifest's `[tuning]` it heeds.
    const TUNED_BY: &'static [Tunable] = &[];
    /// A yardstick to hold techniques against: it moves the bytes that a load moves, and loads no model.
    const IS_YARDSTICK: bool = false;
    /// Whether the model does not hold all its layers at once, so that forward asks for each
    /// ([`Experiment::bring_layer`]); the first forward's peaks are measured with the load's.
    const STREAMS_LAYERS: bool = false;

    /// The peaks that it promises. A measured peak above them is a broken contract.
    fn contract(memory: MemoryModel, size: Footprint) -> Contract;

    /// Whether it makes sense for such a run; the reason where it does not.
    ///
    /// # Errors
    ///
    /// The reason, for a person.
    fn applies(target: Target) -> Result<(), &'static str> {
        let _ = target;
        Ok(())
    }

    /// What the loaded parameters are of the checkpoint's tensors: what a run is verified against.
    fn keeps(target: Target) -> Kept {
        let _ = target;
        Kept::Stored
    }

    /// Loads the model. Only this is measured.
    ///
    /// # Errors
    ///
    /// Whatever kept the model from being loaded.
    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error>;

    /// Makes sure that a layer's parameters are there, and may let go of other layers' for it.
    ///
    /// # Errors
    ///
    /// Whatever kept the layer from being loaded.
    fn bring_layer<B: Platform>(
        run: &Run<B>,
        model: &mut Gpt2<B>,
        layer: usize,
    ) -> Result<(), Error> {
        let _ = (run, model, layer);
        Ok(())
    }
}

/// A way to carry out a technique that differs in how, and not in what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// The technique's name, a colon, and a word: `parallel-read:direct`.
    pub name: &'static str,
    /// One sentence for the catalogue, without a full stop.
    pub summary: &'static str,
}

/// What a run loads, and where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// [`Experiment::NAME`], or the name of one of its variants.
    pub variant: &'static str,
    /// Whose memory the device has.
    pub memory: MemoryModel,
    /// The dtype of the checkpoint.
    pub dtype: Dtype,
}

/// What a loaded parameter is of the checkpoint's tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kept {
    /// The very bytes.
    Stored,
    /// Every element rounded to this dtype, to the nearest.
    Cast(Dtype),
    /// Matrices as 8-bit integers with a scale for every few elements of a row ([`crate::quantise`]); vectors as
    /// they are stored.
    Quantised,
}

impl Kept {
    /// The dtype that the model computes in.
    pub fn dtype(self, stored: Dtype) -> Dtype {
        match self {
            Kept::Stored | Kept::Quantised => stored,
            Kept::Cast(dtype) => dtype,
        }
    }
}

/// What an experiment reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// A whole state dict in one file: safetensors or `.pth`, as the manifest says.
    StateDict,
    /// A state dict in this format, whatever the manifest says.
    Only(Format),
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
    /// All parameters, counted.
    pub elements: u64,
    /// All parameters, at the dtype loaded.
    pub model_bytes: u64,
    /// The largest tensor of the checkpoint, at the dtype loaded.
    pub largest_tensor_bytes: u64,
    /// The largest part of a tensor that is uploaded at once: the largest tensor, or a row shard where
    /// the device's limit asks for shards.
    pub largest_shard_bytes: u64,
    /// All parameters with matrices as 8-bit integers and their scales ([`crate::quantise`]), and the largest part of one that is
    /// uploaded at once.
    pub quantised_bytes: u64,
    /// See above.
    pub largest_quantised_shard_bytes: u64,
    /// Everything outside the layers: token and position embeddings, the last norm, the head.
    pub tables_bytes: u64,
    /// The parameters of one layer.
    pub layer_bytes: u64,
    /// What the run is tuned with.
    pub tuning: Tuning,
    /// Whether the host keeps what Burn uploads until something is computed: so it is on CUDA, where the queue of buffers to be
    /// dropped is emptied by a launch or a flush alone (CubeCL 0.10).
    pub keeps_uploads: bool,
}

impl Footprint {
    /// The footprint of a model of these dimensions. `max_tensor_bytes` is the device's limit.
    pub fn new(
        config: &Config,
        dtype: Dtype,
        max_tensor_bytes: Option<u64>,
        tuning: Tuning,
    ) -> Footprint {
        let largest_tensor_bytes = config.largest_tensor_elements() * dtype.bytes();
        let limit = max_tensor_bytes.unwrap_or(u64::MAX).max(1);
        let row_bytes = config.embedding as u64 * dtype.bytes();
        let rows = largest_tensor_bytes / row_bytes;
        let shards = rows.div_ceil((limit / row_bytes).clamp(1, rows));
        let specs = config.tensors().into_iter();
        let in_tables = specs.filter(|tensor| tensor.layer.is_none());
        let tables: u64 = in_tables.map(|tensor| tensor.elements()).sum();
        let layers = config.layers.max(1) as u64;
        let (mut quantised_bytes, mut largest_quantised_shard_bytes) = (0, 0);
        for tensor in config.tensors() {
            let [rows, columns] = tensor.shape[..] else {
                quantised_bytes += tensor.elements() * dtype.bytes();
                continue;
            };
            let scales = columns / block_elements(columns);
            let row_bytes = (columns + 4 * scales) as u64;
            quantised_bytes += rows as u64 * row_bytes;
            let rows_at_once = limit / (columns as u64 * dtype.bytes());
            let shard_bytes = row_bytes * rows_at_once.clamp(1, rows as u64);
            largest_quantised_shard_bytes = shard_bytes.max(largest_quantised_shard_bytes);
        }
        Footprint {
            quantised_bytes,
            largest_quantised_shard_bytes,
            elements: config.parameters(),
            model_bytes: config.parameters() * dtype.bytes(),
            largest_tensor_bytes,
            largest_shard_bytes: rows.div_ceil(shards) * row_bytes,
            tables_bytes: tables * dtype.bytes(),
            layer_bytes: (config.parameters() - tables) / layers * dtype.bytes(),
            tuning,
            keeps_uploads: false,
        }
    }

    /// The same on a device of this backend.
    pub fn on(self, backend: BackendKind) -> Footprint {
        Footprint {
            keeps_uploads: backend == BackendKind::Cuda,
            ..self
        }
    }

    /// What one of Burn's own loaders holds on the host on its way to a discrete device: `read_bytes` of the file at a time, and
    /// what their uploads take. No flush comes between these.
    pub fn store_bytes(&self, read_bytes: u64) -> u64 {
        match self.keeps_uploads {
            false => self.upload_bytes() + read_bytes,
            true => self.model_bytes + 2 * self.largest_tensor_bytes,
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
    /// Device memory that the allocator's pools hold above the baseline, in use or kept for what comes; `None` on unified memory,
    /// and where nobody can promise it.
    pub reserved_bytes: Option<u64>,
}

impl Contract {
    /// What any run may use beside tensors: the index of the checkpoint, names, buffers of the runtime.
    pub const HOST_CONSTANT_BYTES: u64 = 16 << 20;
    /// What a streaming run may use beside its staging buffers.
    pub const STREAMED_CONSTANT_BYTES: u64 = 8 << 20;
    /// Alignment of the device's allocations, and the little the runtime keeps there.
    pub const DEVICE_CONSTANT_BYTES: u64 = 8 << 20;
    /// What the pools may hold beside what is in use: pages for kernels and for small buffers.
    pub const POOLS_CONSTANT_BYTES: u64 = 32 << 20;

    /// A contract for a device with memory of its own.
    pub fn discrete(host_tensor_bytes: u64, device_tensor_bytes: u64) -> Contract {
        let device_bytes = device_tensor_bytes + Self::DEVICE_CONSTANT_BYTES;
        Contract {
            host_heap_bytes: host_tensor_bytes + Self::HOST_CONSTANT_BYTES,
            device_bytes: Some(device_bytes),
            reserved_bytes: Some(device_bytes + Self::POOLS_CONSTANT_BYTES),
        }
    }

    /// The same, where buffers are let go of while others are taken: a pool keeps one of each size for the next of that size, so
    /// that it holds this much more.
    #[must_use]
    pub fn with_kept_buffers(self, bytes: u64) -> Contract {
        Contract {
            reserved_bytes: self.reserved_bytes.map(|reserved| reserved + bytes),
            ..self
        }
    }

    /// The same, where the pools are filled by Burn's own loaders: how large their pages are follows the device's memory.
    #[must_use]
    pub fn whatever_pools_hold(self) -> Contract {
        Contract {
            reserved_bytes: None,
            ..self
        }
    }

    /// What streaming a model that takes `model_bytes` on the device promises: on a discrete device, the host holds
    /// twice the staging buffer at most, whatever the model and its tensors take.
    pub fn streamed(memory: MemoryModel, size: Footprint, model_bytes: u64) -> Contract {
        match memory {
            MemoryModel::Discrete => Contract {
                host_heap_bytes: 2 * size.tuning.staging_bytes + Self::STREAMED_CONSTANT_BYTES,
                ..Contract::discrete(0, model_bytes)
            },
            MemoryModel::Unified => Contract::unified(model_bytes + 2 * size.tuning.staging_bytes),
        }
    }

    /// What loading quantised matrices promises: the model with a byte for each element of a matrix and a scale for each block (of 32
    /// elements, or of fewer where 32 does not divide a row), and on the way to a discrete device the largest part of a matrix
    /// three times, which Burn copies twice.
    pub fn quantised(memory: MemoryModel, size: Footprint) -> Contract {
        let model_bytes = size.quantised_bytes;
        let on_the_way = 3 * size.largest_quantised_shard_bytes + 2 * size.tuning.staging_bytes;
        match memory {
            MemoryModel::Discrete => Contract::discrete(on_the_way, model_bytes),
            MemoryModel::Unified => Contract::unified(model_bytes + 2 * size.tuning.staging_bytes),
        }
    }

    /// A contract for a device that shares the host's memory.
    pub fn unified(host_tensor_bytes: u64) -> Contract {
        Contract {
            host_heap_bytes: host_tensor_bytes + Self::HOST_CONSTANT_BYTES,
            device_bytes: None,
            reserved_bytes: None,
        }
    }
}

/// An experiment, or a variant of one, as a value, for lists.
#[derive(Clone, Copy)]
pub struct Registered {
    /// [`Experiment::NAME`], or the name of a variant.
    pub name: &'static str,
    /// [`Experiment::NAME`].
    pub experiment: &'static str,
    /// The folder of its crate, in `experiments`.
    pub folder: &'static str,
    /// [`Experiment::SUMMARY`], or that of the variant.
    pub summary: &'static str,
    /// [`Experiment::READS`].
    pub reads: Reads,
    /// [`Experiment::TUNED_BY`].
    pub tuned_by: &'static [Tunable],
    /// [`Experiment::IS_YARDSTICK`].
    pub is_yardstick: bool,
    /// [`Experiment::STREAMS_LAYERS`].
    pub streams_layers: bool,
    /// [`Experiment::contract`].
    pub contract: fn(MemoryModel, Footprint) -> Contract,
    applies: fn(Target) -> Result<(), &'static str>,
    keeps: fn(Target) -> Kept,
    execute: fn(&RunSpec) -> Outcome,
    put_to_use: PutToUse,
}

type PutToUse = fn(&RunSpec, &Task, &mut Tell<'_>) -> Result<(), Error>;

impl Registered {
    /// The experiment `E` and its variants, whose crate is in this folder of `experiments`.
    pub fn of<E: Experiment>(folder: &'static str) -> Vec<Registered> {
        let plain = Variant {
            name: E::NAME,
            summary: E::SUMMARY,
        };
        let all = std::iter::once(plain).chain(E::VARIANTS.iter().copied());
        let registered = all.map(|variant| Registered {
            name: variant.name,
            experiment: E::NAME,
            folder,
            summary: variant.summary,
            reads: E::READS,
            tuned_by: E::TUNED_BY,
            is_yardstick: E::IS_YARDSTICK,
            streams_layers: E::STREAMS_LAYERS,
            contract: E::contract,
            applies: E::applies,
            keeps: E::keeps,
            execute: worker::execute::<E>,
            put_to_use: usage::put_to_use::<E>,
        });
        registered.collect()
    }

    /// Whether it makes sense on such a device; the reason where it does not.
    ///
    /// # Errors
    ///
    /// The reason, for a person.
    pub fn applies(&self, memory: MemoryModel, dtype: Dtype) -> Result<(), &'static str> {
        (self.applies)(self.target(memory, dtype))
    }

    /// What it makes of the checkpoint's tensors.
    pub fn keeps(&self, memory: MemoryModel, dtype: Dtype) -> Kept {
        (self.keeps)(self.target(memory, dtype))
    }

    /// One run of it, in this process: see [`worker`].
    pub fn execute(&self, spec: &RunSpec) -> Outcome {
        (self.execute)(spec)
    }

    /// Loads a model as `spec` says, in this process, and carries out a task with it; `tell` hears of it.
    ///
    /// # Errors
    ///
    /// If the model cannot be loaded, is quantised and should be trained, has no such tokens, or gives numbers that are not
    /// finite; or if a thread panicked on the way.
    pub fn put_to_use(
        &self,
        spec: &RunSpec,
        task: &Task,
        tell: &mut Tell<'_>,
    ) -> Result<(), Error> {
        (self.put_to_use)(spec, task, tell)
    }

    fn target(&self, memory: MemoryModel, dtype: Dtype) -> Target {
        Target {
            variant: self.name,
            memory,
            dtype,
        }
    }
}

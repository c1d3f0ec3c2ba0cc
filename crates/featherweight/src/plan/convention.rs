//! Whose conventions a checkpoint follows: which way round linear weights are, and what norms call their parameters.

use burn_store::{IdentityAdapter, PyTorchToBurnAdapter};
use checkpoint::{Checkpoint, Format};

use super::Slot;

/// Whose conventions a checkpoint follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Convention {
    /// PyTorch's: linear weights `[outputs, inputs]`; norms have `weight` and `bias`.
    PyTorch,
    /// Burn's: linear weights `[inputs, outputs]`; norms have `gamma` and `beta`.
    Burn,
}

impl From<PyTorchToBurnAdapter> for Convention {
    fn from(_: PyTorchToBurnAdapter) -> Convention {
        Convention::PyTorch
    }
}

impl From<IdentityAdapter> for Convention {
    fn from(_: IdentityAdapter) -> Convention {
        Convention::Burn
    }
}

impl Convention {
    /// What the file itself says: `.pth` files are PyTorch's, burnpack files Burn's, and safetensors files tell their framework
    /// where they were written by one.
    pub(crate) fn of(checkpoint: &Checkpoint) -> Option<Convention> {
        match checkpoint.format() {
            Format::Pth | Format::ShardedPth => return Some(Convention::PyTorch),
            Format::Burnpack => return Some(Convention::Burn),
            _ => {}
        }
        let says = |name: &str, value: &str| {
            let said = checkpoint.metadata().get(name);
            said.is_some_and(|said| said == value)
        };
        if says("producer", "burn") || says("format", "burn") {
            return Some(Convention::Burn);
        }
        says("format", "pt").then_some(Convention::PyTorch)
    }

    /// Another framework that the file says it is of. Flax, TensorFlow and MLX have kernels in other orders, some of which have the
    /// same shape.
    pub(crate) fn foreign(checkpoint: &Checkpoint) -> Option<&str> {
        if matches!(
            checkpoint.format(),
            Format::Pth | Format::ShardedPth | Format::Burnpack
        ) {
            // What stands in it under this name is the user's.
            return None;
        }
        let format = &**checkpoint.metadata().get("format")?;
        // burn-store says `safetensors`; `np` is no framework.
        let is_known = matches!(format, "pt" | "burn" | "safetensors" | "np");
        (!is_known).then_some(format)
    }
}

/// Whether a parameter is the weight of a linear layer of burn-nn's; or of a user's own module of this name, which burn-store
/// cannot tell apart either.
pub(crate) fn is_linear_weight(slot: &Slot) -> bool {
    slot.container == "Struct:Linear" && slot.shape.len() == 2 && last(&slot.path) == "weight"
}

/// Whether it is a state that clones of a module share (`RunningState` in burn-core 0.21).
pub(super) fn is_running_state(slot: &Slot) -> bool {
    slot.container == "Struct:BatchNorm"
        && matches!(last(&slot.path), "running_mean" | "running_var")
}

/// What PyTorch calls a norm's parameter.
pub(crate) fn norm_name(slot: &Slot) -> Option<&'static str> {
    const NORMS: [&str; 5] = [
        "Struct:BatchNorm",
        "Struct:LayerNorm",
        "Struct:GroupNorm",
        "Struct:InstanceNorm",
        "Struct:RmsNorm",
    ];
    match last(&slot.path) {
        _ if !NORMS.contains(&&*slot.container) => None,
        "gamma" => Some("weight"),
        "beta" => Some("bias"),
        _ => None,
    }
}

pub(super) fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

//! What is run: an experiment of ours, or an external command that does the same in another way.

use std::sync::Arc;

use checkpoint::{Dtype, Format};
use lab::{Contract, Footprint, Kept, MemoryModel, Reads, Registered, Tunable};

use crate::external::External;

/// One of the two.
#[derive(Clone)]
pub enum Technique {
    Ours(&'static Registered),
    External(Arc<External>),
}

impl Technique {
    pub fn name(&self) -> &str {
        match self {
            Technique::Ours(experiment) => experiment.name,
            Technique::External(external) => &external.name,
        }
    }

    pub fn is_yardstick(&self) -> bool {
        matches!(self, Technique::Ours(experiment) if experiment.is_yardstick)
    }

    pub fn reads_nothing(&self) -> bool {
        matches!(self, Technique::Ours(experiment) if experiment.reads == Reads::Nothing)
    }

    /// Whether it reads a state dict of any format, under whatever names.
    pub fn reads_any(&self) -> bool {
        matches!(self, Technique::Ours(experiment) if experiment.reads == Reads::StateDict)
    }

    /// The format of the checkpoint that it reads, where it reads one.
    pub fn format(&self, state_dict: Format) -> Option<Format> {
        match self {
            Technique::Ours(experiment) => match experiment.reads {
                Reads::StateDict => Some(state_dict),
                Reads::Only(format) => Some(format),
                Reads::Nothing => None,
            },
            Technique::External(external) => Some(external.format),
        }
    }

    /// What of the manifest's tuning it heeds.
    pub fn tuned_by(&self) -> &'static [Tunable] {
        match self {
            Technique::Ours(experiment) => experiment.tuned_by,
            Technique::External(_) => &[Tunable::Threads],
        }
    }

    /// What it promises; an external command promises nothing.
    pub fn contract(&self, memory: MemoryModel, size: Footprint) -> Option<Contract> {
        match self {
            Technique::Ours(experiment) => Some((experiment.contract)(memory, size)),
            Technique::External(_) => None,
        }
    }

    /// Whether it makes sense on such a device, for this dtype; the reason where it does not.
    pub fn applies(&self, memory: MemoryModel, dtype: Dtype) -> Result<(), &'static str> {
        match self {
            Technique::Ours(experiment) => experiment.applies(memory, dtype),
            Technique::External(_) => Ok(()),
        }
    }

    /// What it makes of the checkpoint's tensors.
    pub fn keeps(&self, memory: MemoryModel, dtype: Dtype) -> Kept {
        match self {
            Technique::Ours(experiment) => experiment.keeps(memory, dtype),
            Technique::External(_) => Kept::Stored,
        }
    }
}

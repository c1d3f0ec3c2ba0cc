//! On unified memory: the file's own pages are the parameters. Nothing is read before it is used, nothing is copied, and
//! the kernel may take every page back.
//!
//! The nearest in PyTorch, where forward then works on the mapped pages:
//! ```python
//! state_dict = torch.load("model.pth", mmap=True, weights_only=True)   # or safetensors.torch.load_file
//! model.load_state_dict(state_dict, assign=True)
//! ```
//!
//! The maps are private: an optimiser that writes a parameter in place copies the pages that it writes, and the file stays
//! as it is.

use std::sync::atomic::{AtomicUsize, Ordering};

use checkpoint::{PrivateMap, PrivateMaps};
use gpt2::Gpt2;
use lab::{
    Contract, Error, Experiment, Footprint, MemoryModel, Phase, Platform, Run, Target, Tunable,
    Variant,
};

/// See the crate's documentation.
pub struct MmapZeroCopy;

const POPULATE: &str = "mmap-zero-copy:populate";
const PREFAULT: &str = "mmap-zero-copy:prefault";

impl Experiment for MmapZeroCopy {
    const NAME: &'static str = "mmap-zero-copy";
    const SUMMARY: &'static str =
        "build without memory, map the file, let its pages be the parameters (unified memory)";
    const VARIANTS: &'static [Variant] = &[
        Variant {
            name: POPULATE,
            summary: "the same, and one thread enters all pages into the page table",
        },
        Variant {
            name: PREFAULT,
            summary: "the same, and several threads do so",
        },
    ];
    const TUNED_BY: &'static [Tunable] = &[Tunable::Threads];

    fn contract(_: MemoryModel, _: Footprint) -> Contract {
        Contract::unified(0)
    }

    fn applies(target: Target) -> Result<(), &'static str> {
        match target.memory {
            MemoryModel::Unified => Ok(()),
            MemoryModel::Discrete => {
                Err("a device with memory of its own cannot use a file's pages")
            }
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        let mut model = run.lazy_model();
        let checkpoint = run.open()?;
        let mut parameters = model.tensors_mut(&run.config);

        let mut files = PrivateMaps::default();
        let mut maps = Vec::with_capacity(parameters.len());
        for parameter in &parameters {
            let tensor = checkpoint.tensor(&parameter.spec.name, &parameter.spec.shape)?;
            for shard in &parameter.shards {
                // SAFETY: nobody writes to the checkpoint while the model lives. Should somebody do so all the
                // same, the parameters' digests tell, and a truncated file ends this process alone.
                maps.push(unsafe { files.rows(tensor, shard.rows.clone())? });
            }
        }

        run.enter(Phase::Read);
        match run.variant {
            POPULATE => populate(&maps, 1),
            PREFAULT => populate(&maps, run.tuning.threads),
            _ => {}
        }

        run.enter(Phase::Assign);
        let mut maps = maps.into_iter();
        for parameter in parameters.drain(..) {
            let tensor = checkpoint.tensor(&parameter.spec.name, &parameter.spec.shape)?;
            for (shard, map) in parameter.shards.into_iter().zip(maps.by_ref()) {
                let rows = tensor.clone().narrowed(shard.rows.clone());
                // A matrix that lies in the file otherwise than row by row keeps the file's strides.
                match tensor.shape.len() {
                    2 => shard.assign_matrix(run.place.view(&rows, map)?),
                    _ => shard.assign(run.place.view(&rows, map)?),
                }
            }
        }
        Ok(model)
    }
}

/// Each thread takes the next map that nobody has.
fn populate(maps: &[PrivateMap], threads: usize) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(map) = maps.get(next.fetch_add(1, Ordering::Relaxed)) {
                    map.populate();
                }
            });
        }
    });
}

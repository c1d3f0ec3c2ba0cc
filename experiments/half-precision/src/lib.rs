//! Half precision: a checkpoint of f16 or bf16 loaded as it is, and one of f32 rounded to it while it streams, a piece
//! at a time. Half the memory, wherever the device can compute in it.
//!
//! In PyTorch:
//! ```python
//! with torch.device("meta"):
//!     model = GPTModel(config).to(torch.float16)
//! for name, parameter in model.named_parameters():
//!     ... = state_dict[name].to(torch.float16)
//! ```

use checkpoint::Dtype;
use featherweight::change::burn_dtype;
use gpt2::Gpt2;
use lab::{
    Contract, Error, Experiment, Footprint, Kept, MemoryModel, Platform, Run, Target, Tunable,
    Variant,
};

/// See the crate's documentation.
pub struct HalfPrecision;

const BFLOAT: &str = "half:bf16";

/// What a variant loads.
fn wanted(variant: &str) -> Dtype {
    match variant {
        BFLOAT => Dtype::Bf16,
        _ => Dtype::F16,
    }
}

impl Experiment for HalfPrecision {
    const NAME: &'static str = "half";
    const SUMMARY: &'static str =
        "stream as f16, what is stored so; f32 is rounded piece by piece on its way";
    const VARIANTS: &'static [Variant] = &[Variant {
        name: BFLOAT,
        summary: "the same as bf16",
    }];
    const TUNED_BY: &'static [Tunable] = &[Tunable::Staging];

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        // Of a model of f32: one that is half precision already is within it all the same.
        Contract::streamed(memory, size, size.elements * Dtype::F16.bytes())
    }

    fn applies(target: Target) -> Result<(), &'static str> {
        match target.dtype {
            Dtype::F32 => Ok(()),
            stored if stored == wanted(target.variant) => Ok(()),
            _ => Err("it is for checkpoints of f32, or of the dtype that it loads"),
        }
    }

    fn keeps(target: Target) -> Kept {
        match wanted(target.variant) {
            wanted if wanted == target.dtype => Kept::Stored,
            wanted => Kept::Cast(wanted),
        }
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        let mut model = run.lazy_model();
        let load = run.load(&mut model)?.cast(burn_dtype(run.dtype));
        let (model, _) = load.streamed().into(model)?;
        Ok(model)
    }
}

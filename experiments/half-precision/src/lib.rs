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

use checkpoint::{Dtype, Reader, TensorRange};
use gpt2::Gpt2;
use lab::{
    Contract, Error, Experiment, Filling, Footprint, Kept, MemoryModel, Phase, Platform, Run,
    Target, Tunable, Variant, convert,
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
        let checkpoint = run.open()?;
        let mut reader = run.reader();
        let mut cast = Cast::default();
        for parameter in model.tensors_mut(&run.config) {
            let tensor = checkpoint.tensor(&parameter.spec.name, &parameter.spec.shape)?;
            let mut loaded = Vec::new();
            for shard in &parameter.shards {
                loaded.push(match run.stored == run.dtype {
                    true => run.stream(&mut reader, tensor, shard.rows.clone())?,
                    false => cast.stream(run, &mut reader, tensor, shard.rows.clone())?,
                });
            }
            run.enter(Phase::Assign);
            parameter.assign(loaded);
        }
        Ok(model)
    }
}

/// The piece that is being rounded: as it is stored, and as floats.
#[derive(Default)]
struct Cast {
    stored: Vec<u8>,
    floats: Vec<f32>,
}

impl Cast {
    /// As [`Run::stream`], with every element rounded to the run's dtype on the way.
    fn stream<B: Platform>(
        &mut self,
        run: &Run<B>,
        reader: &mut Reader,
        tensor: &TensorRange,
        rows: std::ops::Range<usize>,
    ) -> Result<burn::tensor::Tensor<B, 1>, Error> {
        let range = tensor.rows(rows);
        let (from, to) = (run.stored.bytes(), run.dtype.bytes());
        run.enter(Phase::Materialise);
        let mut filling = run.begin(((range.end - range.start) / from) as usize)?;
        // Stored, floats and rounded: three buffers, so each takes less.
        let step = tensor.piece_bytes(run.tuning.piece_bytes() / 4 * 2) as u64;
        run.enter(Phase::Read);
        for start in range.clone().step_by(step as usize) {
            let end = range.end.min(start + step);
            let elements = (end - start) / from;
            self.stored.resize((end - start) as usize, 0);
            reader.read(tensor, start, &mut self.stored)?;
            self.floats.clear();
            convert::extend_as_f32(&mut self.floats, run.stored, &self.stored);
            let place = (start - range.start) / from * to;
            let length = (elements * to) as usize;
            if let Some(memory) = filling.memory() {
                let memory = &mut memory[place as usize..][..length];
                convert::round_into(memory, run.dtype, &self.floats);
            } else {
                let mut piece = B::staging_buffer(&run.device, length);
                convert::round_into(&mut piece, run.dtype, &self.floats);
                filling.write(place, piece)?;
            }
        }
        Ok(filling.finish())
    }
}

//! Every matrix as 8-bit integers with a scale for each 32 elements, quantised while it streams: 0.28 of the f32 model, and
//! the f32 model is never held. Vectors (biases, norms) stay as they are.
//!
//! Forward turns one matrix at a time into floats, on every backend: Burn 0.21 quantises again what it transposes, and
//! has no lookup in a quantised table on GPUs.

use std::cmp::Reverse;

use checkpoint::{Access, Reader, TensorRange};
use gpt2::Gpt2;
use lab::quantise::{Quantised, block_elements};
use lab::{
    Contract, Error, Experiment, Footprint, Kept, MemoryModel, Phase, Platform, Run, Target,
    Tunable, convert,
};

/// See the crate's documentation.
pub struct Quantized;

impl Experiment for Quantized {
    const NAME: &'static str = "quantized";
    const SUMMARY: &'static str =
        "stream, and quantise every matrix to 8-bit integers on its way, a few rows at a time";
    const TUNED_BY: &'static [Tunable] = &[Tunable::Staging];

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        Contract::quantised(memory, size)
    }

    fn keeps(_: Target) -> Kept {
        Kept::Quantised
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        let mut model = run.lazy_model();
        let vectors = run.load_only(&mut model, |spec| spec.shape.len() == 1)?;
        let (mut model, _) = vectors.streamed().into(model)?;
        let checkpoint = run.open()?;
        let mut reader = Reader::new(Access::Buffered);
        let mut parameters = model.tensors_mut(&run.config);
        parameters.retain(|parameter| parameter.spec.shape.len() == 2);
        // Burn copies a quantised matrix while it takes it: the largest ones while little else is there.
        parameters.sort_by_key(|parameter| Reverse(parameter.spec.elements()));
        for parameter in parameters {
            let tensor = checkpoint.tensor(&parameter.spec.name, &parameter.spec.shape)?;
            let columns = parameter.spec.shape[1];
            for shard in parameter.shards {
                let rows = shard.rows.clone();
                let matrix = quantise(run, &mut reader, tensor, rows.clone())?;
                run.enter(Phase::Upload);
                let matrix = run.upload_quantised(matrix, [rows.len(), columns])?;
                run.enter(Phase::Assign);
                shard.assign_matrix(matrix);
            }
        }
        Ok(model)
    }
}

/// Rows of a matrix, read and quantised as many at a time as the staging buffer has room for.
fn quantise<B: Platform>(
    run: &Run<B>,
    reader: &mut Reader,
    tensor: &TensorRange,
    rows: std::ops::Range<usize>,
) -> Result<Quantised, Error> {
    run.enter(Phase::Read);
    let columns = tensor.shape[1];
    let mut matrix = Quantised::with_capacity(rows.len() * columns, block_elements(columns));
    let (mut stored, mut floats) = (Vec::new(), Vec::new());
    let rows_at_once = (run.tuning.piece_bytes() / tensor.row_bytes() as usize).max(1);
    for start in rows.clone().step_by(rows_at_once) {
        let range = tensor.rows(start..rows.end.min(start + rows_at_once));
        stored.resize((range.end - range.start) as usize, 0);
        reader.read(tensor, range.start, &mut stored)?;
        floats.clear();
        convert::extend_as_f32(&mut floats, run.stored, &stored);
        matrix.extend(&floats, block_elements(columns));
    }
    Ok(matrix)
}

//! A checkpoint that holds its matrices as 8-bit integers already: a quarter of the bytes on disk, and no arithmetic. The
//! file is a safetensors file in which a matrix `NAME` is of dtype I8, and `NAME.scales` has a scale for each block.

use std::cmp::Reverse;

use checkpoint::{Access, Dtype, Format, Reader};
use gpt2::Gpt2;
use lab::quantise::{Quantised, block_elements, scales_name};
use lab::{
    Contract, Error, Experiment, Footprint, Kept, MemoryModel, Phase, Platform, Reads, Run, Target,
};

/// See the crate's documentation.
pub struct Prequantized;

impl Experiment for Prequantized {
    const NAME: &'static str = "prequantized";
    const SUMMARY: &'static str =
        "load a checkpoint whose matrices are stored as 8-bit integers with scales";
    const READS: Reads = Reads::Only(Format::Int8);

    fn contract(memory: MemoryModel, size: Footprint) -> Contract {
        Contract::quantised(memory, size)
    }

    fn applies(target: Target) -> Result<(), &'static str> {
        match target.dtype {
            Dtype::F32 => Ok(()),
            _ => Err("vectors and scales of a quantised checkpoint are f32"),
        }
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
            let (rows, columns) = (parameter.spec.shape[0], parameter.spec.shape[1]);
            let name = &parameter.spec.name;
            let values = checkpoint.tensor(name, &[rows, columns])?;
            let blocks = columns / block_elements(columns);
            let scales = checkpoint.tensor(&scales_name(name), &[rows, blocks])?;
            for shard in parameter.shards {
                let rows = shard.rows.clone();
                run.enter(Phase::Read);
                let mut matrix = Quantised {
                    values: vec![0; rows.len() * columns],
                    scales: vec![0.0; rows.len() * blocks],
                };
                let (values_at, scales_at) = (values.rows(rows.clone()), scales.rows(rows.clone()));
                let bytes = bytemuck::cast_slice_mut(&mut matrix.values);
                reader.read(values, values_at.start, bytes)?;
                let bytes = bytemuck::cast_slice_mut(&mut matrix.scales);
                reader.read(scales, scales_at.start, bytes)?;
                run.enter(Phase::Upload);
                let matrix = run.upload_quantised(matrix, [rows.len(), columns])?;
                run.enter(Phase::Assign);
                shard.assign_matrix(matrix);
            }
        }
        Ok(model)
    }
}

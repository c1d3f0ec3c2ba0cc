//! A model on its way from the device to a file, block by block.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::Tensor;
use checkpoint::TensorMeta;
use gpt2::layout::{Blocks, write_tensors};
use gpt2::{Gpt2, TensorMut};

use crate::platform::Platform;
use crate::usage::say;
use crate::{Error, Run, Saving, Tell, Told};

/// Writes the model as `saving` says.
pub(super) fn save<B: Platform>(
    model: &mut Gpt2<B>,
    run: &Run<B>,
    saving: &Saving,
    tell: &mut Tell<'_>,
) -> Result<(), Error> {
    let tensors = model.tensors_mut(&run.config).into_iter();
    let mut parameters = Parameters(
        tensors
            .map(|tensor| (tensor.spec.name.clone(), tensor))
            .collect(),
    );
    let mut after = |bytes| say(tell, Told::Written { bytes });
    let Saving {
        path,
        format,
        tensors,
        metadata,
    } = saving;
    write_tensors(
        path,
        *format,
        tensors,
        metadata,
        &mut parameters,
        &mut after,
    )?;
    Ok(())
}

/// A model's parameters, by the names of the tensors that they hold.
struct Parameters<'m, B: Platform>(BTreeMap<String, TensorMut<'m, B>>);

impl<B: Platform> Blocks<Error> for Parameters<'_, B> {
    fn read(
        &mut self,
        tensor: &TensorMeta,
        transposed: bool,
        rows: Range<usize>,
        to: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let held = self
            .0
            .get(&tensor.name)
            .ok_or_else(|| Error::Setup(format!("the model has no tensor `{}`", tensor.name)))?;
        let shards = held.shards.iter();
        let shards = shards.map(|shard| (shard.rows.clone(), shard.value()));
        read_rows(shards, &tensor.shape, transposed, rows, to)
    }
}

/// Reads rows of a tensor back, or of it transposed. It comes as its shards: the rows that each has, and its elements.
pub(super) fn read_rows<B: Platform>(
    shards: impl Iterator<Item = (Range<usize>, Tensor<B, 1>)>,
    shape: &[usize],
    transposed: bool,
    rows: Range<usize>,
    to: &mut Vec<u8>,
) -> Result<(), Error> {
    let width: usize = shape[1..].iter().product();
    if transposed {
        let columns = shards.map(|(held, value)| {
            let matrix = value.reshape([held.len(), width]);
            matrix.narrow(1, rows.start, rows.len()).transpose()
        });
        let block = Tensor::cat(columns.collect(), 1);
        let elements = block.shape().num_elements();
        return B::read_back(block.reshape([elements]), &mut |piece| {
            to.extend_from_slice(piece);
        });
    }
    for (held, value) in shards {
        let (start, end) = (rows.start.max(held.start), rows.end.min(held.end));
        if start < end {
            let block = value.narrow(0, (start - held.start) * width, (end - start) * width);
            B::read_back(block, &mut |piece| to.extend_from_slice(piece))?;
        }
    }
    Ok(())
}

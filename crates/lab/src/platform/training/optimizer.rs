//! AdamW's state on disk: a safetensors file, in PyTorch's words for it.
//!
//! ```text
//!  step                      f32 [1]                     steps taken
//!  NAME.exp_avg              as the parameter NAME       first moment
//!  NAME.exp_avg_sq           as the parameter NAME       second moment
//! ```
//!
//! NAME is the model's own name of the parameter, whatever layout its checkpoint is in. Moments are written and read block by
//! block.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::Path;

use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::record::{AdaptorRecord, AdaptorRecordV1};
use burn::optim::{AdamW, AdamWState, AdaptiveMomentumState, Optimizer};
use burn::tensor::Tensor;
use burn_autodiff::Autodiff;
use checkpoint::{Checkpoint, Dtype, Format, TensorMeta};
use gpt2::Gpt2;
use gpt2::layout::{Blocks, FileTensor, write_tensors};

use super::saving::read_rows;
use crate::optimizer_state::{MOMENTS, MOST_STEPS, STEP, steps};
use crate::platform::Platform;
use crate::usage::say;
use crate::{Error, Run, Tell, Told};

type Adam<B> = OptimizerAdaptor<AdamW, Gpt2<Autodiff<B>>, Autodiff<B>>;

/// A moment's shards: the rows that each has, and its elements.
type Shards<B> = Vec<(Range<usize>, Tensor<B, 1>)>;

/// Writes the optimizer's state.
pub(super) fn save<B: Platform>(
    optimizer: &Adam<B>,
    model: &mut Gpt2<Autodiff<B>>,
    run: &Run<B>,
    path: &Path,
    tell: &mut Tell<'_>,
) -> Result<(), Error> {
    let nothing = |name: &str| {
        Error::Setup(format!(
            "{}: AdamW has no state of `{name}` to save: no step was made",
            path.display()
        ))
    };
    // Handles: no element is copied.
    let records = optimizer.to_record();
    let mut tensors = vec![FileTensor::whole(TensorMeta {
        name: STEP.to_owned(),
        dtype: Dtype::F32,
        shape: vec![1],
    })];
    let mut state = State {
        steps: 0,
        moments: BTreeMap::new(),
    };
    for tensor in model.tensors_mut(&run.config) {
        let name = &tensor.spec.name;
        let mut moments: [Shards<B>; 2] = Default::default();
        for shard in &tensor.shards {
            let AdaptorRecord::V1(record) =
                records.get(&shard.id()).ok_or_else(|| nothing(name))?;
            let (steps, values) = match record {
                AdaptorRecordV1::Rank1(state) => flat(&state.momentum),
                AdaptorRecordV1::Rank2(state) => flat(&state.momentum),
                _ => return Err(nothing(name)),
            };
            state.steps = steps;
            for (moment, value) in moments.iter_mut().zip(values) {
                moment.push((shard.rows.clone(), value));
            }
        }
        for (moment, shards) in MOMENTS.iter().zip(moments) {
            let name = format!("{name}.{moment}");
            tensors.push(FileTensor::whole(TensorMeta {
                name: name.clone(),
                dtype: run.dtype,
                shape: tensor.spec.shape.clone(),
            }));
            state.moments.insert(name, shards);
        }
    }
    if state.steps > MOST_STEPS {
        let reason = format!("{} steps are more than the file can count", state.steps);
        return Err(Error::Setup(format!("{}: {reason}", path.display())));
    }
    let mut after = |bytes| say(tell, Told::Written { bytes });
    let nothing_more = BTreeMap::new();
    write_tensors(
        path,
        Format::Safetensors,
        &tensors,
        &nothing_more,
        &mut state,
        &mut after,
    )?;
    Ok(())
}

/// The steps and the moments of a parameter.
fn flat<B: Platform, const D: usize>(
    state: &AdaptiveMomentumState<B, D>,
) -> (usize, [Tensor<B, 1>; 2]) {
    let moments = [&state.moment_1, &state.moment_2].map(|moment| {
        let elements = moment.shape().num_elements();
        moment.clone().reshape([elements])
    });
    (state.time, moments)
}

struct State<B: Platform> {
    steps: usize,
    moments: BTreeMap<String, Shards<B>>,
}

impl<B: Platform> Blocks<Error> for State<B> {
    fn read(
        &mut self,
        tensor: &TensorMeta,
        transposed: bool,
        rows: Range<usize>,
        to: &mut Vec<u8>,
    ) -> Result<(), Error> {
        match self.moments.get(&tensor.name) {
            Some(shards) => read_rows(shards.iter().cloned(), &tensor.shape, transposed, rows, to),
            None => {
                to.extend((self.steps as f32).to_le_bytes());
                Ok(())
            }
        }
    }
}

/// The optimizer with the state that a training of this model saved.
pub(super) fn resume<B: Platform>(
    optimizer: Adam<B>,
    model: &mut Gpt2<Autodiff<B>>,
    run: &Run<B>,
    path: &Path,
) -> Result<Adam<B>, Error> {
    let state = Checkpoint::open(path)?;
    let wrong = |reason: String| Error::Setup(format!("{}: {reason}", path.display()));
    let time = steps(&state).map_err(|why| wrong(format!("is no state of AdamW: {why}")))?;
    let mut records = optimizer.to_record();
    let mut unused: HashSet<&str> = state.tensors().iter().map(|tensor| &*tensor.name).collect();
    unused.remove(STEP);
    for tensor in model.tensors_mut(&run.config) {
        let mut sources = Vec::new();
        for moment in MOMENTS {
            let name = format!("{}.{moment}", tensor.spec.name);
            let source = state.tensor(&name, &tensor.spec.shape)?;
            if source.dtype != run.dtype {
                return Err(wrong(format!(
                    "`{name}` is {}, and the model is trained in {}: load it by a technique that keeps {}",
                    source.dtype, run.dtype, source.dtype
                )));
            }
            unused.remove(&*name);
            sources.push(source);
        }
        for shard in &tensor.shards {
            let mut moments = Vec::with_capacity(sources.len());
            for source in &sources {
                moments.push(run.stream(source, shard.rows.clone())?);
            }
            let (moment_2, moment_1) = (moments.pop(), moments.pop());
            let (Some(moment_1), Some(moment_2)) = (moment_1, moment_2) else {
                unreachable!("there are two moments");
            };
            let record = match shard.shape()[..] {
                [rows, columns] => record([rows, columns], time, moment_1, moment_2),
                _ => record([shard.rows.len()], time, moment_1, moment_2),
            };
            records.insert(shard.id(), record);
        }
    }
    if let Some(name) = unused.iter().min() {
        return Err(wrong(format!(
            "has `{name}`, and the model no such parameter: it is the state of another model"
        )));
    }
    B::finish(&run.device)?;
    Ok(optimizer.load_record(records))
}

fn record<B: Platform, const D: usize>(
    shape: [usize; D],
    time: usize,
    moment_1: Tensor<B, 1>,
    moment_2: Tensor<B, 1>,
) -> AdaptorRecord<AdamW, Autodiff<B>> {
    let momentum = AdaptiveMomentumState {
        time,
        moment_1: moment_1.reshape(shape),
        moment_2: moment_2.reshape(shape),
        max_moment_2: None,
    };
    AdaptorRecord::from_state::<D>(AdamWState::new(momentum))
}

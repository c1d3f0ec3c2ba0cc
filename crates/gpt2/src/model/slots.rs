//! The places of a model that a checkpoint's tensors go to.

use std::ops::Range;

use burn::module::{Param, ParamId};
use burn::tensor::backend::{Backend, ExecutionError};
use burn::tensor::{DType, Tensor, TensorData};

use super::layers::{LayerNorm, Matrix, RowSharded, StoredLinear, Vector, lazy_param, rows_of};
use crate::{Initial, TensorSpec};

/// A tensor of the checkpoint, with the parameters of the model that hold it.
pub struct TensorMut<'m, B: Backend> {
    /// Its name, shape and initialisation.
    pub spec: TensorSpec,
    /// The parameters that hold its rows, in row order: one, unless it is a sharded vocabulary table.
    pub shards: Vec<ShardMut<'m, B>>,
}

/// A parameter, with the rows of the checkpoint's tensor that it holds.
pub struct ShardMut<'m, B: Backend> {
    /// Rows of the tensor in the checkpoint (elements, where it has one dimension).
    pub rows: Range<usize>,
    slot: Slot<'m, B>,
}

pub(super) enum Slot<'m, B: Backend> {
    Vector(&'m mut Vector<B>),
    Matrix(&'m mut Matrix<B>),
}

/// Collects the slots of a module tree in checkpoint order.
pub(super) struct Slots<'m, B: Backend>(pub Vec<Vec<Slot<'m, B>>>);

impl<B: Backend> Default for Slots<'_, B> {
    fn default() -> Self {
        Slots(Vec::new())
    }
}

impl<'m, B: Backend> Slots<'m, B> {
    /// Each with what the checkpoint calls it.
    pub fn join(self, specs: Vec<TensorSpec>) -> Vec<TensorMut<'m, B>> {
        assert_eq!(specs.len(), self.0.len(), "the model has other dimensions");
        let joined = specs.into_iter().zip(self.0);
        joined
            .map(|(spec, slots)| TensorMut::new(spec, slots))
            .collect()
    }

    pub fn tensor(&mut self, slot: Slot<'m, B>) {
        self.0.push(vec![slot]);
    }

    pub fn sharded(&mut self, table: &'m mut RowSharded<B>) {
        self.0
            .push(table.shards.iter_mut().map(Slot::Matrix).collect());
    }

    pub fn linear(&mut self, linear: &'m mut StoredLinear<B>) {
        self.tensor(Slot::Matrix(&mut linear.weight));
        if let Some(bias) = &mut linear.bias {
            self.tensor(Slot::Vector(bias));
        }
    }

    pub fn norm(&mut self, norm: &'m mut LayerNorm<B>) {
        self.tensor(Slot::Vector(&mut norm.scale));
        if let Some(shift) = &mut norm.shift {
            self.tensor(Slot::Vector(shift));
        }
    }
}

impl<'m, B: Backend> TensorMut<'m, B> {
    pub(super) fn new(spec: TensorSpec, slots: Vec<Slot<'m, B>>) -> Self {
        let mut start = 0;
        let shards = slots.into_iter().map(|slot| {
            let end = start + slot.shape()[0];
            let rows = start..end;
            start = end;
            ShardMut { rows, slot }
        });
        let shards = shards.collect();
        assert_eq!(start, spec.shape[0], "{} has other dimensions", spec.name);
        TensorMut { spec, shards }
    }

    /// Assigns one flat tensor to each shard, in row order: see [`ShardMut::assign`].
    ///
    /// # Panics
    ///
    /// If there are not as many tensors as shards.
    pub fn assign(self, tensors: Vec<Tensor<B, 1>>) {
        assert_eq!(self.shards.len(), tensors.len(), "{}", self.spec.name);
        for (shard, tensor) in self.shards.into_iter().zip(tensors) {
            shard.assign(tensor);
        }
    }
}

impl<B: Backend> TensorMut<'_, B> {
    /// Lets the values go: the parameters are lazy again, and hold no memory.
    pub fn release(self) {
        let initial = self.spec.initial;
        for shard in self.shards {
            match shard.slot {
                Slot::Vector(param) => release(param, initial),
                Slot::Matrix(param) => release(param, initial),
            }
        }
    }

    /// Takes the values out, flat and in row order, initialising what is lazy; the parameters are lazy
    /// again behind it. The caller owns the only reference, so that flex gives the bytes away uncopied.
    pub fn take(self) -> Vec<Tensor<B, 1>> {
        let initial = self.spec.initial;
        let shards = self.shards.into_iter();
        shards
            .map(|shard| match shard.slot {
                Slot::Vector(param) => take(param, initial),
                Slot::Matrix(param) => flat(take(param, initial)),
            })
            .collect()
    }
}

impl<B: Backend> ShardMut<'_, B> {
    /// The parameter's shape, without initialising it.
    pub fn shape(&self) -> Vec<usize> {
        self.slot.shape()
    }

    /// Makes `tensor` the parameter's value; what it held is dropped, and a lazy parameter is not
    /// initialised first. `tensor` is flat, with the shard's elements in row order: giving it the
    /// parameter's shape copies nothing.
    ///
    /// # Panics
    ///
    /// If `tensor` has another number of elements than the parameter.
    pub fn assign(self, tensor: Tensor<B, 1>) {
        match self.slot {
            Slot::Vector(param) => replace(param, tensor),
            Slot::Matrix(param) => {
                let shape = param.lazy_shape().dims::<2>();
                replace(param, tensor.reshape(shape));
            }
        }
    }

    /// Makes a matrix the parameter's value, as [`ShardMut::assign`] does: for values that must keep their
    /// shape, as quantised ones.
    ///
    /// # Panics
    ///
    /// If the parameter is no matrix of this shape.
    pub fn assign_matrix(self, tensor: Tensor<B, 2>) {
        match self.slot {
            Slot::Matrix(param) => replace(param, tensor),
            Slot::Vector(_) => panic!("a vector cannot hold a matrix"),
        }
    }

    /// The parameter's value, flat, in row order, as floats; a lazy parameter is initialised by reading it.
    pub fn value(&self) -> Tensor<B, 1> {
        match &self.slot {
            Slot::Vector(param) => param.val(),
            Slot::Matrix(param) => flat(rows_of(param)),
        }
    }

    /// What a quantised matrix holds, as it lies there: a byte for each value, row after row, and behind them the blocks' scales in
    /// f32. `None` where the parameter is not quantised.
    ///
    /// # Errors
    ///
    /// If the device cannot be read.
    pub fn quantised(&self) -> Option<Result<TensorData, ExecutionError>> {
        match &self.slot {
            Slot::Matrix(param) => {
                let value = param.val();
                matches!(value.dtype(), DType::QFloat(_)).then(|| value.try_into_data())
            }
            Slot::Vector(_) => None,
        }
    }

    /// What gradients and optimizers know the parameter by.
    pub fn id(&self) -> ParamId {
        match &self.slot {
            Slot::Vector(param) => param.id,
            Slot::Matrix(param) => param.id,
        }
    }

    /// Initialises the parameter if it is lazy still.
    pub fn initialise(&self) {
        match &self.slot {
            Slot::Vector(param) => drop(param.val()),
            Slot::Matrix(param) => drop(param.val()),
        }
    }

    /// Whether the parameter holds a value, and so memory.
    pub fn is_initialised(&self) -> bool {
        match &self.slot {
            Slot::Vector(param) => param.is_initialized(),
            Slot::Matrix(param) => param.is_initialized(),
        }
    }
}

impl<B: Backend> Slot<'_, B> {
    fn shape(&self) -> Vec<usize> {
        match self {
            Slot::Vector(param) => param.lazy_shape().as_slice().to_vec(),
            Slot::Matrix(param) => param.lazy_shape().as_slice().to_vec(),
        }
    }
}

fn flat<B: Backend>(tensor: Tensor<B, 2>) -> Tensor<B, 1> {
    let elements = tensor.shape().num_elements();
    tensor.reshape([elements])
}

fn release<B: Backend, const D: usize>(param: &mut Param<Tensor<B, D>>, initial: Initial) {
    let (shape, device) = (param.lazy_shape(), param.lazy_device());
    *param = lazy_param(initial, shape.as_slice().to_vec(), &device);
}

fn take<B: Backend, const D: usize>(
    param: &mut Param<Tensor<B, D>>,
    initial: Initial,
) -> Tensor<B, D> {
    let (shape, device) = (param.lazy_shape(), param.lazy_device());
    let lazy = lazy_param(initial, shape.as_slice().to_vec(), &device);
    std::mem::replace(param, lazy).into_value()
}

/// Cloning a lazy parameter initialises nothing (burn-core 0.21, `Param::clone`), and
/// `transform_for_load` keeps its id, its mappers and its gradient setting.
fn replace<B: Backend, const D: usize>(param: &mut Param<Tensor<B, D>>, tensor: Tensor<B, D>) {
    *param = param.clone().transform_for_load(tensor, param.id);
}

//! The layers GPT-2 is made of, in the layouts that a checkpoint stores, so that no loader has to
//! transpose.

use burn::module::{Module, Param, ParamId};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Distribution, FloatDType, Int, Shape, Tensor};

use crate::{Initial, TensorSpec, Variant};

pub(super) type Matrix<B> = Param<Tensor<B, 2>>;
pub(super) type Vector<B> = Param<Tensor<B, 1>>;

/// A matrix to compute with: what is quantised becomes floats for the moment. (Burn 0.21 quantises again whatever
/// it transposes, and its GPU backends have no lookup in a quantised table.)
pub(super) fn rows_of<B: Backend>(matrix: &Matrix<B>) -> Tensor<B, 2> {
    let value = matrix.val();
    match value.dtype() {
        DType::QFloat(_) => value.dequantize(),
        _ => value,
    }
}

/// Hands out lazy parameters in checkpoint order, so that shapes are written once: in the inventory.
pub(super) struct Specs<'a, B: Backend> {
    specs: std::slice::Iter<'a, TensorSpec>,
    max_shard_elements: u64,
    device: &'a B::Device,
}

impl<'a, B: Backend> Specs<'a, B> {
    pub fn new(specs: &'a [TensorSpec], max_shard_elements: u64, device: &'a B::Device) -> Self {
        Specs {
            specs: specs.iter(),
            max_shard_elements,
            device,
        }
    }

    fn next(&mut self) -> &'a TensorSpec {
        self.specs.next().expect("the inventory lists every layer")
    }

    pub fn matrix(&mut self) -> Matrix<B> {
        let spec = self.next();
        lazy_param(spec.initial, spec.shape.clone(), self.device)
    }

    pub fn vector(&mut self) -> Vector<B> {
        let spec = self.next();
        lazy_param(spec.initial, spec.shape.clone(), self.device)
    }

    pub fn linear(&mut self, bias: bool) -> StoredLinear<B> {
        StoredLinear {
            weight: self.matrix(),
            bias: bias.then(|| self.vector()),
        }
    }

    pub fn norm(&mut self, variant: &Variant) -> LayerNorm<B> {
        LayerNorm {
            scale: self.vector(),
            shift: variant.biases.then(|| self.vector()),
            epsilon: variant.epsilon.value(),
        }
    }

    pub fn row_sharded(&mut self) -> RowSharded<B> {
        let spec = self.next();
        let (rows, columns) = (spec.shape[0], spec.shape[1]);
        let most = ((self.max_shard_elements / columns as u64) as usize).clamp(1, rows);
        let count = rows.div_ceil(most);
        let height = rows.div_ceil(count);
        let heights = (0..rows)
            .step_by(height)
            .map(|start| height.min(rows - start));
        RowSharded {
            shards: heights
                .map(|height| lazy_param(spec.initial, vec![height, columns], self.device))
                .collect(),
        }
    }
}

pub(super) fn lazy_param<B: Backend, const D: usize>(
    initial: Initial,
    shape: Vec<usize>,
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    let shape = Shape::from(shape);
    let lazy_shape = shape.clone();
    let initialise = move |device: &B::Device, require_grad: bool| {
        // Flat at first: CUDA begins each row of a matrix at a multiple of 512 bytes, which takes more than the model has, and
        // what is freed of it would not serve for what is loaded (CubeCL 0.10).
        let create = |shape: Shape| {
            let flat = [shape.num_elements()];
            let values = match initial {
                Initial::Normal => Tensor::random(flat, Distribution::Normal(0.0, 1.0), device),
                Initial::Uniform { bound } => {
                    Tensor::random(flat, Distribution::Uniform(-bound, bound), device)
                }
                Initial::Ones => Tensor::<B, 1>::ones(flat, device),
                Initial::Zeros => Tensor::zeros(flat, device),
            };
            values.reshape(shape)
        };
        // Parameters live as long as the model: CubeCL keeps such allocations at their exact size,
        // where its general pools would round them up to pages (as Burn's own initialisers do).
        B::memory_persistent_allocations(device, shape.clone(), create)
            .set_require_grad(require_grad)
    };
    Param::uninitialized(ParamId::new(), initialise, device.clone(), true, lazy_shape)
}

/// `y = x Wᵀ + b`, with `W` stored `[outputs, inputs]` as PyTorch does. Its name is not `Linear`, for burn-store's
/// reader of PyTorch files transposes the weights of whatever bears that name.
#[derive(Module, Debug)]
pub(super) struct StoredLinear<B: Backend> {
    pub weight: Matrix<B>,
    pub bias: Option<Vector<B>>,
}

impl<B: Backend> StoredLinear<B> {
    /// `[rows, inputs]` → `[rows, outputs]`. Two-dimensional on purpose: on a batched input Burn 0.21's
    /// flex backend would copy the transposed weight.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let y = x.matmul(rows_of(&self.weight).transpose());
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        }
    }
}

/// Layer normalisation over the last dimension, with the biased variance.
#[derive(Module, Debug)]
pub(super) struct LayerNorm<B: Backend> {
    pub scale: Vector<B>,
    pub shift: Option<Vector<B>>,
    #[module(skip)]
    pub epsilon: f64,
}

impl<B: Backend> LayerNorm<B> {
    pub fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        // In single precision, as PyTorch does it: a sum of squares over a wide row is over what f16 can hold.
        let half = match x.dtype() {
            DType::F16 => Some(FloatDType::F16),
            DType::BF16 => Some(FloatDType::BF16),
            _ => None,
        };
        let wide = match half {
            Some(_) => x.cast(FloatDType::F32),
            None => x,
        };
        let (variance, mean) = wide.clone().var_mean_bias(2);
        let normal = (wide - mean) / (variance + self.epsilon).sqrt();
        let normal = match half {
            Some(half) => normal.cast(half),
            None => normal,
        };
        let scaled = normal * self.scale.val().unsqueeze();
        match &self.shift {
            Some(shift) => scaled + shift.val().unsqueeze(),
            None => scaled,
        }
    }
}

/// A table `[rows, columns]` kept as consecutive row shards.
#[derive(Module, Debug)]
pub(super) struct RowSharded<B: Backend> {
    pub shards: Vec<Matrix<B>>,
}

impl<B: Backend> RowSharded<B> {
    /// The rows `ids`: `[n]` → `[n, columns]`.
    pub fn rows(&self, ids: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        if let [table] = &self.shards[..] {
            return rows_of(table).select(0, ids);
        }
        let mut start = 0;
        let mut sum: Option<Tensor<B, 2>> = None;
        for shard in &self.shards {
            let table = rows_of(shard);
            let height = table.dims()[0];
            let local = ids.clone() - start as i64;
            let inside = local.clone().greater_equal_elem(0).int()
                * local.clone().lower_elem(height as i64).int();
            // Ids of other shards read some row of this one, and count for nothing.
            let rows = table.select(0, local.clamp(0, height as i64 - 1));
            let rows = rows * inside.float().unsqueeze_dim(1);
            sum = Some(match sum {
                Some(sum) => sum + rows,
                None => rows,
            });
            start += height;
        }
        sum.expect("a table has at least one shard")
    }

    /// `x` against every row: `[n, columns]` → `[n, rows]`.
    pub fn project(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let parts = self.shards.iter();
        let mut parts: Vec<_> = parts
            .map(|shard| x.clone().matmul(rows_of(shard).transpose()))
            .collect();
        match parts.len() {
            1 => parts.remove(0),
            _ => Tensor::cat(parts, 1),
        }
    }
}

//! A module with one of everything, and checkpoints for it.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Initializer, Module, Param, ParamId};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear,
    LinearConfig, RmsNorm, RmsNormConfig,
};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData};
use checkpoint::{Dtype, Format, TensorMeta};

/// Of every kind of parameter, nesting and rank.
#[derive(Module, Debug)]
pub struct Everything<B: Backend> {
    pub embedding: Embedding<B>,
    pub layers: Vec<Layer<B>>,
    pub pair: (Linear<B>, LayerNorm<B>),
    pub optional: Option<Linear<B>>,
    pub absent: Option<Linear<B>>,
    pub choice: Choice<B>,
    pub convolution: Conv2d<B>,
    pub batch: BatchNorm<B>,
    pub rms: RmsNorm<B>,
    pub rank3: Param<Tensor<B, 3>>,
    pub rank5: Param<Tensor<B, 5>>,
    pub numbers: Param<Tensor<B, 1, Int>>,
    pub mask: Param<Tensor<B, 2, Bool>>,
    pub tied: Param<Tensor<B, 2>>,
}

#[derive(Module, Debug)]
pub struct Layer<B: Backend> {
    pub widen: Linear<B>,
    pub square: Linear<B>,
}

#[derive(Module, Debug)]
pub enum Choice<B: Backend> {
    One(Linear<B>),
    Other(LayerNorm<B>),
}

pub const WIDTH: usize = 8;

impl<B: Backend> Everything<B> {
    pub fn lazy(device: &B::Device) -> Everything<B> {
        let embedding: Embedding<B> = EmbeddingConfig::new(11, WIDTH).init(device);
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        let param = |shape: Vec<usize>| -> Param<Tensor<B, 3>> {
            Initializer::Normal {
                mean: 0.0,
                std: 1.0,
            }
            .init(shape, device)
        };
        Everything {
            tied: embedding.weight.clone(),
            embedding,
            layers: (0..3)
                .map(|_| Layer {
                    widen: linear(WIDTH, 3 * WIDTH),
                    square: linear(WIDTH, WIDTH),
                })
                .collect(),
            pair: (linear(WIDTH, 5), LayerNormConfig::new(WIDTH).init(device)),
            optional: Some(linear(2, WIDTH)),
            absent: None,
            choice: Choice::One(linear(WIDTH, 2)),
            convolution: Conv2dConfig::new([3, 4], [2, 2]).init(device),
            batch: BatchNormConfig::new(4).init(device),
            rms: RmsNormConfig::new(WIDTH).init(device),
            rank3: param(vec![2, 3, 4]),
            rank5: Initializer::Ones.init([1, 2, 1, 3, 2], device),
            numbers: Param::initialized(ParamId::new(), Tensor::zeros([6], device)),
            mask: Param::initialized(
                ParamId::new(),
                Tensor::<B, 2, Int>::zeros([4, 4], device).bool(),
            ),
        }
    }

    /// The same, each parameter with memory of its own.
    pub fn initialised(device: &B::Device) -> Everything<B> {
        struct Initialise;
        impl<B: Backend> burn::module::ModuleVisitor<B> for Initialise {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
                drop(param.val());
            }
        }
        let module = Everything::lazy(device);
        module.visit(&mut Initialise);
        module
    }
}

/// A tensor of a file: shape and bytes.
pub type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// Values of a tensor that differ from any other's.
pub fn floats(name: &str, elements: usize) -> Vec<f32> {
    let seed = name.bytes().fold(7u32, |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    (0..elements)
        .map(|at| {
            let mixed = seed.wrapping_add(at as u32).wrapping_mul(2_654_435_761) >> 16;
            (mixed as f32 / 65536.0) - 0.5
        })
        .collect()
}

pub fn f32s(name: &str, shape: &[usize]) -> Stored {
    let values = floats(name, shape.iter().product());
    let bytes = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    (Dtype::F32, shape.to_vec(), bytes)
}

/// What PyTorch would save of [`Everything`].
pub fn from_pytorch() -> BTreeMap<String, Stored> {
    let mut tensors = BTreeMap::new();
    let mut add = |name: &str, shape: &[usize]| {
        tensors.insert(name.to_owned(), f32s(name, shape));
    };
    let w = WIDTH;
    add("embedding.weight", &[11, w]);
    for layer in 0..3 {
        add(&format!("layers.{layer}.widen.weight"), &[3 * w, w]);
        add(&format!("layers.{layer}.widen.bias"), &[3 * w]);
        add(&format!("layers.{layer}.square.weight"), &[w, w]);
        add(&format!("layers.{layer}.square.bias"), &[w]);
    }
    add("pair.0.weight", &[5, w]);
    add("pair.0.bias", &[5]);
    add("pair.1.weight", &[w]);
    add("pair.1.bias", &[w]);
    add("optional.weight", &[w, 2]);
    add("optional.bias", &[w]);
    add("choice.weight", &[2, w]);
    add("choice.bias", &[2]);
    add("convolution.weight", &[4, 3, 2, 2]);
    add("convolution.bias", &[4]);
    for name in ["weight", "bias", "running_mean", "running_var"] {
        add(&format!("batch.{name}"), &[4]);
    }
    add("rms.weight", &[w]);
    add("rank3", &[2, 3, 4]);
    add("rank5", &[1, 2, 1, 3, 2]);
    let numbers = [0i64, 1, -5, 7, 1 << 20, 3];
    let bytes = numbers.iter().flat_map(|value| value.to_le_bytes());
    tensors.insert("numbers".to_owned(), (Dtype::I64, vec![6], bytes.collect()));
    let mask = (0..16).map(|at| u8::from(at % 3 == 0)).collect();
    tensors.insert("mask".to_owned(), (Dtype::Bool, vec![4, 4], mask));
    let counter = (Dtype::I64, vec![], 5i64.to_le_bytes().to_vec());
    tensors.insert("batch.num_batches_tracked".to_owned(), counter);
    tensors
}

/// Writes a checkpoint; safetensors files say that they are PyTorch's.
pub fn write(path: &Path, format: Format, tensors: &BTreeMap<String, Stored>) -> PathBuf {
    let metas: Vec<TensorMeta> = tensors
        .iter()
        .map(|(name, (dtype, shape, _))| TensorMeta {
            name: name.clone(),
            dtype: *dtype,
            shape: shape.clone(),
        })
        .collect();
    checkpoint::write(path, format, &metas, &mut |meta, sink| {
        sink(&tensors[&meta.name].2)
    })
    .expect("the checkpoint is written");
    path.to_owned()
}

/// The values of a parameter as PyTorch has them: the matrix of a linear layer turned.
pub fn turned(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let mut turned = vec![0.0; values.len()];
    for row in 0..rows {
        for column in 0..columns {
            turned[column * rows + row] = values[row * columns + column];
        }
    }
    turned
}

/// Values in f32, whatever they are stored in.
pub fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    let data: TensorData = tensor.into_data().convert_dtype(DType::F32);
    data.to_vec().expect("they are floats")
}

/// That every parameter holds what PyTorch's checkpoint has.
pub fn check<B: Backend>(module: &Everything<B>) {
    let w = WIDTH;
    let linear = |linear: &Linear<B>, name: &str, [inputs, outputs]: [usize; 2]| {
        let expected = floats(&format!("{name}.weight"), inputs * outputs);
        assert_eq!(linear.weight.dims(), [inputs, outputs], "{name}");
        assert_eq!(
            values(linear.weight.val()),
            turned(&expected, [outputs, inputs]),
            "{name}.weight"
        );
        let bias = linear.bias.as_ref().expect("it has one");
        assert_eq!(values(bias.val()), floats(&format!("{name}.bias"), outputs));
    };
    assert_eq!(
        values(module.embedding.weight.val()),
        floats("embedding.weight", 11 * w)
    );
    assert_eq!(
        values(module.tied.val()),
        floats("embedding.weight", 11 * w)
    );
    for (at, layer) in module.layers.iter().enumerate() {
        linear(&layer.widen, &format!("layers.{at}.widen"), [w, 3 * w]);
        linear(&layer.square, &format!("layers.{at}.square"), [w, w]);
    }
    linear(&module.pair.0, "pair.0", [w, 5]);
    assert_eq!(
        values(module.pair.1.gamma.val()),
        floats("pair.1.weight", w)
    );
    let beta = module.pair.1.beta.as_ref().expect("it has one");
    assert_eq!(values(beta.val()), floats("pair.1.bias", w));
    linear(module.optional.as_ref().unwrap(), "optional", [2, w]);
    let Choice::One(one) = &module.choice else {
        panic!("another variant");
    };
    linear(one, "choice", [w, 2]);
    assert_eq!(
        values(module.convolution.weight.val()),
        floats("convolution.weight", 48)
    );
    assert_eq!(values(module.batch.gamma.val()), floats("batch.weight", 4));
    assert_eq!(
        values(module.batch.running_mean.value()),
        floats("batch.running_mean", 4)
    );
    assert_eq!(
        values(module.batch.running_var.value()),
        floats("batch.running_var", 4)
    );
    assert_eq!(values(module.rms.gamma.val()), floats("rms.weight", w));
    assert_eq!(values(module.rank3.val()), floats("rank3", 24));
    assert_eq!(values(module.rank5.val()), floats("rank5", 12));
    let numbers = module.numbers.val().into_data().convert::<i64>();
    assert_eq!(numbers.to_vec::<i64>().unwrap(), [0, 1, -5, 7, 1 << 20, 3]);
    let mask = module.mask.val().into_data().convert::<bool>();
    let expected: Vec<bool> = (0..16).map(|at| at % 3 == 0).collect();
    assert_eq!(mask.to_vec::<bool>().unwrap(), expected);
}

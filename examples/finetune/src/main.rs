//! Fine-tuning: the layers of a classifier from PyTorch, below a new head, trained and written again.
//!
//! ```text
//! finetune pretrained.safetensors --truth truth.json --out finetuned.safetensors
//! ```

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use burn::tensor::activation::gelu;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Int, Tensor, TensorData};
use burn_autodiff::Autodiff;
use clap::{Parser, ValueEnum};
use featherweight::{BurnToPyTorchAdapter, PyTorchToBurnAdapter};
use serde::Deserialize;

/// Trains a classifier's layers below a new head.
#[derive(Parser)]
struct Args {
    /// The layers below the head.
    checkpoint: PathBuf,
    /// A file with inputs, labels, and PyTorch's loss at each step.
    #[arg(long)]
    truth: PathBuf,
    /// Where to write what was trained.
    #[arg(long)]
    out: PathBuf,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    device: Device,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Device {
    #[default]
    Flex,
    #[cfg(feature = "vulkan")]
    Vulkan,
}

#[derive(Deserialize)]
struct Truth {
    inputs: Vec<Vec<f32>>,
    labels: Vec<i32>,
    losses: Vec<f32>,
}

#[derive(Module, Debug)]
struct Classifier<B: Backend> {
    input: Linear<B>,
    norm: LayerNorm<B>,
    hidden: Linear<B>,
    head: Linear<B>,
}

impl<B: Backend> Classifier<B> {
    fn new(inputs: usize, width: usize, classes: usize, device: &B::Device) -> Self {
        Classifier {
            input: LinearConfig::new(inputs, width).init(device),
            norm: LayerNormConfig::new(width).init(device),
            hidden: LinearConfig::new(width, width).init(device),
            // It begins at zero, as PyTorch's did: random numbers would not be the same there.
            head: LinearConfig::new(width, classes)
                .with_initializer(Initializer::Zeros)
                .init(device),
        }
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let x = gelu(self.norm.forward(self.input.forward(x)));
        let x = gelu(self.hidden.forward(x));
        self.head.forward(x)
    }
}

const WIDTH: usize = 64;
const CLASSES: usize = 4;
const LEARNING_RATE: f64 = 0.1;
/// f32 differs in the order of its sums: losses by less than this part.
const TOLERANCE: f32 = 1e-5;

fn main() -> Result<()> {
    let args = Args::parse();
    match args.device {
        Device::Flex => run::<Autodiff<burn_flex::Flex>>(&args),
        #[cfg(feature = "vulkan")]
        Device::Vulkan => run::<Autodiff<burn_wgpu::Vulkan>>(&args),
    }
}

fn run<B: AutodiffBackend>(args: &Args) -> Result<()> {
    let text = std::fs::read(&args.truth).with_context(|| format!("{}", args.truth.display()))?;
    let truth: Truth = serde_json::from_slice(&text)?;
    let (examples, inputs) = (truth.inputs.len(), truth.inputs[0].len());

    let device = B::Device::default();
    let model = Classifier::<B>::new(inputs, WIDTH, CLASSES, &device);
    // The checkpoint has no head: that of the model stays as it was made.
    let checkpoint = featherweight::open(&args.checkpoint)?;
    let (mut model, report) = checkpoint
        .load()
        .with_from_adapter(PyTorchToBurnAdapter)
        .allow_partial(true)
        .streamed()
        .into(model)?;
    println!("{report}");

    let inputs = TensorData::new(truth.inputs.concat(), [examples, inputs]);
    let inputs = Tensor::<B, 2>::from_data(inputs, &device);
    let labels = Tensor::<B, 1, Int>::from_ints(&truth.labels[..], &device);
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    let mut optimizer = SgdConfig::new().init();
    for (step, expected) in truth.losses.iter().enumerate() {
        let loss = cross_entropy.forward(model.forward(inputs.clone()), labels.clone());
        let value: f32 = loss.clone().into_scalar().elem();
        println!("step {step}: loss {value:.6}, PyTorch's {expected:.6}");
        let error = (value - expected).abs() / expected;
        ensure!(
            error <= TOLERANCE,
            "they differ by {error:.1e} of it, more than {TOLERANCE:.0e}"
        );

        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(LEARNING_RATE, model, gradients);
    }

    featherweight::save(&model)
        .with_to_adapter(BurnToPyTorchAdapter)
        .overwrite(true)
        .to(&args.out)?;
    println!("wrote {}", args.out.display());
    Ok(())
}

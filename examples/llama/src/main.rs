//! A Llama as Hugging Face publishes it: several files in bf16, loaded into a model of burn-nn's layers.
//!
//! ```text
//! llama FOLDER --tokens 1,2,3
//! ```

mod model;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, ElementConversion, Int, Tensor, TensorData};
use clap::{Parser, ValueEnum};
use model::{Llama, LlamaConfig};
use serde::Deserialize;

/// Loads a Llama and computes with it.
#[derive(Parser)]
struct Args {
    /// A folder with config.json and the weights.
    checkpoint: PathBuf,
    /// Token ids to go on from.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    tokens: Vec<i32>,
    /// A file with token ids and PyTorch's logits for them, to compare with.
    #[arg(long)]
    truth: Option<PathBuf>,
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

fn main() -> Result<()> {
    let args = Args::parse();
    match args.device {
        Device::Flex => run::<burn_flex::Flex>(&args),
        #[cfg(feature = "vulkan")]
        Device::Vulkan => run::<burn_wgpu::Vulkan>(&args),
    }
}

fn run<B: Backend>(args: &Args) -> Result<()> {
    let device = B::Device::default();
    let model: Llama<B> = LlamaConfig::read(&args.checkpoint.join("config.json"))?.init(&device);

    let checkpoint = featherweight::open(&args.checkpoint)?;
    let (model, report) = checkpoint
        .load()
        .with_key_remapping(r"^model\.", "")
        .cast(DType::F32) // CPUs are slow in bf16
        .streamed()
        .into(model)?;
    println!("{report}");

    match &args.truth {
        Some(path) => compare(&model, path, &device),
        None => {
            let next = next_token(&model, &args.tokens, &device);
            println!("after {:?} comes {next}", args.tokens);
            Ok(())
        }
    }
}

fn next_token<B: Backend>(model: &Llama<B>, tokens: &[i32], device: &B::Device) -> i64 {
    let tokens = Tensor::<B, 1, Int>::from_ints(tokens, device);
    let last = tokens.dims()[0] - 1;
    let logits = model.forward(tokens.unsqueeze());
    let best = logits.slice([0..1, last..last + 1]).argmax(2);
    best.into_scalar().elem()
}

#[derive(Deserialize)]
struct Truth {
    tokens: Vec<Vec<i32>>,
    logits: Vec<Vec<Vec<f32>>>,
}

/// f32 differs in the order of its sums: by less than this part of the largest logit.
const TOLERANCE: f32 = 1e-4;

fn compare<B: Backend>(model: &Llama<B>, truth: &Path, device: &B::Device) -> Result<()> {
    let text = std::fs::read(truth).with_context(|| format!("{}", truth.display()))?;
    let truth: Truth = serde_json::from_slice(&text)?;

    let shape = [truth.tokens.len(), truth.tokens[0].len()];
    let tokens = TensorData::new(truth.tokens.concat(), shape);
    let logits = model.forward(Tensor::from_data(tokens, device));

    let logits = logits.into_data().convert::<f32>().into_vec::<f32>()?;
    let expected = truth.logits.concat().concat();
    ensure!(
        logits.len() == expected.len(),
        "{} logits for {}",
        logits.len(),
        expected.len()
    );
    let differences = logits.iter().zip(&expected).map(|(x, y)| (x - y).abs());
    // In the total order no number is greater than NaN.
    let difference = differences.max_by(f32::total_cmp).context("no logits")?;
    let largest = expected
        .iter()
        .fold(0.0, |largest: f32, x| largest.max(x.abs()));
    let error = difference / largest;
    println!("logits differ from PyTorch's by {error:.1e} of the largest");
    ensure!(error <= TOLERANCE, "that is more than {TOLERANCE:.0e}");
    Ok(())
}

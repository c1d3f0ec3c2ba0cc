//! A ResNet-18 from PyTorch: a `.pth` file as `torch.save(model.state_dict(), path)` writes it, running statistics included.
//!
//! ```text
//! resnet FILE --truth truth.json
//! ```

mod model;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use clap::{Parser, ValueEnum};
use model::{ResNet, ResNetConfig};
use serde::Deserialize;

/// Loads a ResNet-18 and classifies images.
#[derive(Parser)]
struct Args {
    /// The state dict.
    checkpoint: PathBuf,
    /// A file with images and PyTorch's logits for them.
    #[arg(long)]
    truth: PathBuf,
    /// Channels of the first layer: torchvision's ResNet-18 has 64.
    #[arg(long, default_value_t = 8)]
    width: usize,
    /// Classes that the head tells apart: torchvision's ResNet-18 has 1000.
    #[arg(long, default_value_t = 10)]
    classes: usize,
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

/// What the file with the truth holds.
#[derive(Deserialize)]
struct Truth {
    /// By image, channel and row.
    images: Vec<Vec<Vec<Vec<f32>>>>,
    /// By image.
    logits: Vec<Vec<f32>>,
}

/// f32 differs in the order of its sums: by less than this part of the largest logit.
const TOLERANCE: f32 = 1e-4;

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
    let config = ResNetConfig::new()
        .with_width(args.width)
        .with_classes(args.classes);
    let model: ResNet<B> = config.init(&device);

    // The file's `num_batches_tracked` have no place in Burn's batch norms: the report lists them.
    let checkpoint = featherweight::open(&args.checkpoint)?;
    let (model, report) = checkpoint.load().streamed().into(model)?;
    println!("{report}");

    let text = std::fs::read(&args.truth).with_context(|| format!("{}", args.truth.display()))?;
    let truth: Truth = serde_json::from_slice(&text)?;
    let image = &truth.images[0];
    let shape = [
        truth.images.len(),
        image.len(),
        image[0].len(),
        image[0][0].len(),
    ];
    let images = TensorData::new(truth.images.concat().concat().concat(), shape);
    let logits = model.forward(Tensor::from_data(images, &device));

    let logits = logits.into_data().convert::<f32>().into_vec::<f32>()?;
    let expected = truth.logits.concat();
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

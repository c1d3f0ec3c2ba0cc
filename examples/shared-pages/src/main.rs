//! Two processes with one model in memory between them: both map the same checkpoint, and its pages are their parameters.
//!
//! ```text
//! shared-pages model.safetensors
//! ```
//!
//! The program writes the checkpoint and starts itself twice. Both load it, compute, and print how much of their memory is
//! shared. Burn's layout is in the file, so that no weight has to be transposed. Linux only.

mod pages;
mod processes;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor};
use burn_flex::{Flex, FlexDevice};
use clap::Parser;
use pages::Pages;
use processes::{Loader, say_and_wait};

/// Loads one checkpoint in two processes that share its pages.
#[derive(Parser)]
struct Args {
    /// Where to write the checkpoint, of 64 MiB.
    checkpoint: PathBuf,
    /// The output that the model must have. With it, this is one of the two processes.
    #[arg(long, hide = true, allow_hyphen_values = true)]
    expect: Option<f32>,
}

const LAYERS: usize = 64;
const WIDTH: usize = 512;
const MODEL_BYTES: u64 = (LAYERS * WIDTH * WIDTH * size_of::<f32>()) as u64;

#[derive(Module, Debug)]
struct Stack<B: Backend> {
    layers: Vec<Linear<B>>,
}

impl<B: Backend> Stack<B> {
    fn new(device: &B::Device) -> Self {
        let linear = LinearConfig::new(WIDTH, WIDTH).with_bias(false);
        Stack {
            layers: (0..LAYERS).map(|_| linear.init(device)).collect(),
        }
    }

    /// A number that depends on every layer.
    fn output(&self) -> f32 {
        let mut x = Tensor::<B, 2>::ones([1, WIDTH], &self.devices()[0]);
        for layer in &self.layers {
            x = x.clone() + relu(layer.forward(x));
        }
        x.mean().into_scalar().elem()
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.expect {
        None => start_two(&args.checkpoint),
        Some(expected) => load(&args.checkpoint, expected),
    }
}

/// The first process: it makes the checkpoint and has two others load it at the same time.
fn start_two(checkpoint: &Path) -> Result<()> {
    let model: Stack<Flex> = Stack::new(&FlexDevice);
    let output = model.output();
    featherweight::save(&model).overwrite(true).to(checkpoint)?;

    let mut processes = [
        Loader::start(checkpoint, output)?,
        Loader::start(checkpoint, output)?,
    ];
    // Both hold the model before either counts its pages, and until both have.
    for step in ["loaded", "counted"] {
        for process in &mut processes {
            process.wait_for(step)?;
        }
        for process in &mut processes {
            process.go_on()?;
        }
    }
    processes.into_iter().try_for_each(Loader::finish)
}

/// Each of the two.
fn load(checkpoint: &Path, expected: f32) -> Result<()> {
    let before = Pages::now()?;
    let checkpoint = featherweight::open(checkpoint)?;
    let model: Stack<Flex> = Stack::new(&FlexDevice);
    // SAFETY: nobody changes the file while the model lives: the process that wrote it only waits.
    let (model, report) = unsafe { checkpoint.load().mapped() }.into(model)?;
    println!("{report}");
    let output = model.output();
    ensure!(
        (output - expected).abs() <= 1e-5 * expected.abs(),
        "computes {output}, not {expected}"
    );
    say_and_wait("loaded")?;

    let after = Pages::now()?;
    let private = after.private.saturating_sub(before.private);
    let shared = after.shared.saturating_sub(before.shared);
    let share = after.proportional.saturating_sub(before.proportional);
    let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    println!(
        "process {}: the model took {:.1} MiB of its own, {:.1} MiB shared; its share of all is {:.1} MiB",
        std::process::id(),
        mib(private),
        mib(shared),
        mib(share),
    );
    say_and_wait("counted")?;
    ensure!(private < MODEL_BYTES / 8, "it has pages of its own");
    ensure!(shared > MODEL_BYTES / 8 * 7, "it shares too few pages");
    Ok(())
}

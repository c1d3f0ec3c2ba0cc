//! Many processes with one model in memory between them: all map the same checkpoint, and its pages are their parameters.
//!
//! ```text
//! shared-pages model.safetensors --processes 8
//! ```
//!
//! The program writes the checkpoint and starts itself eight times. All load it, compute, and print how much of their memory is
//! shared; together they hold the model once. Burn's layout is in the file, so that no weight has to be transposed. Linux only.

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

/// Loads one checkpoint in several processes that share its pages.
#[derive(Parser)]
struct Args {
    /// Where to write the checkpoint, of 64 MiB.
    checkpoint: PathBuf,
    /// How many processes load it.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(2..=64))]
    processes: u8,
    /// The output that the model must have. With it, this is one of these processes.
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
        None => start(&args.checkpoint, args.processes),
        Some(expected) => load(&args.checkpoint, expected),
    }
}

/// The first process: it makes the checkpoint and has others load it at the same time.
fn start(checkpoint: &Path, processes: u8) -> Result<()> {
    let model: Stack<Flex> = Stack::new(&FlexDevice);
    let output = model.output();
    featherweight::save(&model).overwrite(true).to(checkpoint)?;
    drop(model);

    let loaders = (0..processes).map(|_| Loader::start(checkpoint, output));
    let mut loaders: Vec<Loader> = loaders.collect::<Result<_>>()?;
    // All hold the model before any counts its pages, and until all have.
    let mut together = 0;
    for loader in &mut loaders {
        loader.wait_for(LOADED)?;
    }
    loaders.iter_mut().try_for_each(Loader::go_on)?;
    for loader in &mut loaders {
        together += loader.wait_for(HOLDS)?.parse::<u64>()?;
    }
    loaders.iter_mut().try_for_each(Loader::go_on)?;
    loaders.into_iter().try_for_each(Loader::finish)?;
    let times = together as f64 / MODEL_BYTES as f64;
    println!(
        "together the {processes} processes hold {:.1} MiB of the model: {times:.3} times its {:.1} MiB",
        mib(together),
        mib(MODEL_BYTES)
    );
    ensure!(times <= 1.05, "they hold it more than once");
    Ok(())
}

/// What the others say of themselves.
const LOADED: &str = "=> loaded";
const HOLDS: &str = "=> holds";

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// Each of the others.
fn load(path: &Path, expected: f32) -> Result<()> {
    let before = Pages::of_process()?;
    let checkpoint = featherweight::open(path)?;
    let model: Stack<Flex> = Stack::new(&FlexDevice);
    // SAFETY: nobody changes the file while the model lives: the process that wrote it only waits.
    let (model, report) = unsafe { checkpoint.load().mapped() }.into(model)?;
    println!("{report}");
    let output = model.output();
    ensure!(
        (output - expected).abs() <= 1e-5 * expected.abs(),
        "computes {output}, not {expected}"
    );
    say_and_wait(LOADED)?;

    let held = Pages::of_file(path)?;
    let own = Pages::of_process()?.private.saturating_sub(before.private);
    println!(
        "process {}: {:.1} MiB of the file's pages are shared, and its share of them is {:.1} MiB; {:.1} MiB are its own",
        std::process::id(),
        mib(held.shared),
        mib(held.proportional),
        mib(own),
    );
    say_and_wait(&format!("{HOLDS} {}", held.proportional))?;
    ensure!(own < MODEL_BYTES / 8, "it has pages of its own");
    ensure!(held.shared > MODEL_BYTES / 8 * 7, "it shares too few pages");
    Ok(())
}

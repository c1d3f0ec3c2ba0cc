//! Loads GPT-2 with candle. Speaks with the harness over standard input and output: see harness/src/external/mod.rs.
//!
//! `candle-peer TECHNIQUE`: `mmap` is candle's usual way (VarBuilder over a mapped safetensors file), `buffered` reads the
//! whole file first.

mod model;

use std::io::{BufRead, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use serde::Deserialize;

use model::Gpt2;

/// What the harness asks for.
#[derive(Deserialize)]
struct Specification {
    checkpoint: PathBuf,
    dtype: String,
    threads: usize,
    model: model::Config,
    tokens: Vec<u32>,
    logits: PathBuf,
}

fn main() {
    if let Err(error) = run() {
        println!(
            "{}",
            serde_json::json!({ "event": "failed", "reason": format!("{error:#}") })
        );
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    let technique = std::env::args().nth(1).context("usage: candle-peer mmap|buffered")?;
    let mut lines = std::io::stdin().lock().lines();
    let mut hear = || lines.next().context("the harness is gone")?.context("standard input");
    let spec: Specification = serde_json::from_str(&hear()?)?;
    if !spec.model.variant.is_empty() {
        let variant = spec.model.variant.trim_start_matches('-');
        bail!("computes the book's GPT-2 alone, and this model differs in {variant}");
    }
    rayon::ThreadPoolBuilder::new().num_threads(spec.threads).build_global()?;
    let dtype = match &*spec.dtype {
        "f32" => DType::F32,
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        other => bail!("no dtype is called {other}"),
    };
    let device = Device::Cpu;
    // The first allocation and kernel: setting up is no part of a load.
    Tensor::ones((8, 8), dtype, &device)?.matmul(&Tensor::ones((8, 8), dtype, &device)?)?;
    say(&serde_json::json!({ "event": "ready", "framework": "candle 0.11.1" }))?;

    hear()?;
    let weights = match &*technique {
        // SAFETY: nobody writes to the checkpoint while this program runs.
        "mmap" => unsafe { VarBuilder::from_mmaped_safetensors(&[&spec.checkpoint], dtype, &device)? },
        "buffered" => VarBuilder::from_buffered_safetensors(std::fs::read(&spec.checkpoint)?, dtype, &device)?,
        other => bail!("no technique is called {other}: mmap, buffered"),
    };
    let model = Gpt2::load(&spec.model, &weights)?;
    drop(weights);
    say(&serde_json::json!({ "event": "loaded" }))?;

    hear()?;
    let logits = model.forward(&spec.tokens)?.to_dtype(DType::F32)?;
    let values: Vec<f32> = logits.flatten_all()?.to_vec1()?;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(&spec.logits, bytes)?;
    say(&serde_json::json!({ "event": "done" }))
}

fn say(message: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{message}")?;
    Ok(out.flush()?)
}

//! The command line.

use std::path::PathBuf;

use checkpoint::{Dtype, Format};
use clap::{Args, Parser, Subcommand};
use gpt2::Size;
use gpt2::layout::Reading;
use lab::DeviceSpec;

use crate::checkout;
use crate::exit;
use crate::machine;
use crate::number;
use crate::units::ByteSize;
use crate::worker::WorkerArgs;

/// Runs loading experiments in fresh processes, records what they held, and shows it.
#[derive(Parser)]
#[command(version = machine::VERSION, about, after_help = exit::CODES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// List experiments, sizes, and the devices found, with why others are not usable
    List(FormatArgs),
    /// Tell versions, devices, memory and disk of this machine
    Doctor(DoctorArgs),
    /// Make the checkpoints of sizes, or check and digest one of your own
    Prepare(PrepareArgs),
    /// Run a manifest, record every run, and show the results
    Run(RunArgs),
    /// Search for the smallest host memory that each experiment survives in, and show it
    Minmem(MinmemArgs),
    /// Draw the charts of recorded results again
    Plot(ResultsArgs),
    /// Write the report of recorded results again: claims, contracts, tables and charts
    Report(ResultsArgs),
    /// Load a checkpoint of yours and go on with a text
    Generate(GenerateArgs),
    /// Load a checkpoint of yours and train it for a few steps on a text: the loss must fall
    Finetune(FinetuneArgs),
    /// Say which technique fits into the memory that is there, and is fastest
    Advise(AdviseArgs),
    /// Say in words what an experiment held at its peak in a recorded run
    Explain(ExplainArgs),
    /// Measure what measuring costs: the same loads with every instrument, and with a clock alone
    Overhead(OverheadArgs),
    /// Hold two folders of results side by side; fails where memory grew
    Compare(CompareArgs),
    /// Take a folder of results among the committed ones: results/MACHINE/MANIFEST, and its charts
    Publish(PublishArgs),
    /// Write again what is made of the committed rows: summaries, reports, charts, and the generated parts of README.md
    Regenerate(RegenerateArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or that of a command: harness man run | man -l -
    Man(ManArgs),
    /// Make one run in this process and print its outcome as JSON
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// Run a program, and end all that it starts when it ends
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Guard(crate::guard::GuardArgs),
    /// Compute a checkpoint's reference logits
    #[command(hide = true)]
    Reference(ReferenceArgs),
    /// Make a checkpoint in a format that is made of another
    #[command(hide = true)]
    Derive(DeriveArgs),
}

/// Where checkpoints are kept.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// Folder that checkpoints are kept in
    #[arg(
        long,
        value_name = "DIR",
        default_value_os_t = checkout::folder(checkout::CHECKPOINTS),
        hide_default_value = true,
        help = "Folder that checkpoints are kept in [default: checkpoints, at the checkout's root]"
    )]
    pub checkpoints: PathBuf,
}

/// For a person, or for a program.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// Print one JSON object instead of tables and words: plain numbers, their units in their names
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// How a checkpoint of the user's is read.
#[derive(Debug, Clone, Args)]
pub struct ReadingArgs {
    /// TOML file that says what the checkpoint's tensors are called, where no built-in layout fits (book, book-fast, hugging-face, nanogpt, burn)
    #[arg(long, value_name = "FILE")]
    pub layout: Option<PathBuf>,
    /// Where the state dict is in a file of PyTorch's, if it is under none of the usual keys: keys with dots between them, as in
    /// ema.model
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Refuse a checkpoint that holds tensors which the model does not have; what is missing, of another shape or of a second model
    /// is refused always
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub strict: bool,
    /// Take a field of the checkpoint's config.json (or model_args) for one that changes nothing that the model computes
    #[arg(long = "ignore-config", value_name = "KEY")]
    pub ignored_config: Vec<String>,
    /// Cast all weights to this dtype first, as where a checkpoint mixes several
    #[arg(long, value_name = "DTYPE")]
    pub cast: Option<Dtype>,
}

impl ReadingArgs {
    pub fn reading(&self) -> Reading {
        Reading {
            layout: self.layout.clone(),
            key: self.key.clone(),
        }
    }
}

/// Names and layout of checkpoints that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LayoutOut {
    Book,
    HuggingFace,
}

#[derive(Debug, Args)]
pub struct PrepareArgs {
    /// Sizes to prepare: small, medium, large, xl, or free-form such as v257-c64-e48-l2-h4
    #[arg(long = "size", value_name = "SIZE", required_unless_present = "from")]
    pub sizes: Vec<Size>,
    /// Dtype of the weights
    #[arg(long, default_value = "f32")]
    pub dtype: Dtype,
    /// Formats to write [default: safetensors, pth and per-tensor; safetensors with --as hugging-face]
    #[arg(long = "format", value_name = "FORMAT")]
    pub formats: Vec<Format>,
    /// Names and layout to write: the book's, or those of transformers, in a folder that GPT2LMHeadModel.from_pretrained opens
    #[arg(long = "as", value_name = "LAYOUT", default_value = "book")]
    pub layout_out: LayoutOut,
    /// A checkpoint of your own: it is checked, digested, and written in the formats that it does not have, under the book's
    /// names
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    #[command(flatten)]
    pub reading: ReadingArgs,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// A checkpoint of the user's, and how to load it.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Checkpoint to load: any format and layout that `run --checkpoint` takes
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Size of the model, where it cannot be read off the checkpoint (its heads, say)
    #[arg(long)]
    pub size: Option<Size>,
    /// Technique to load it by
    #[arg(long, value_name = "NAME", default_value = "streamed")]
    pub experiment: String,
    /// Device to load to
    #[arg(long, default_value = "flex")]
    pub device: DeviceSpec,
    /// End with an error after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = |text: &str| number::TIMEOUT_SECONDS.parse(text))]
    pub timeout: u64,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// A text, or its tokens.
#[derive(Debug, Args)]
pub struct TextArgs {
    /// Text, in the words of --tokenizer
    #[arg(
        long,
        requires = "tokenizer",
        required_unless_present = "tokens",
        conflicts_with = "tokens"
    )]
    pub prompt: Option<String>,
    /// Token ids instead of a text, as in 15496,995
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub tokens: Option<Vec<u32>>,
    /// The model's tokenizer: tokenizer.json, or a folder with it, with vocab.json and merges.txt, or with encoder.json and
    /// vocab.bpe
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub text: TextArgs,
    /// How many tokens to add
    #[arg(long, default_value_t = 20, value_parser = |text: &str| number::COUNT.parse(text))]
    pub count: u64,
}

#[derive(Debug, Args)]
pub struct FinetuneArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub text: TextArgs,
    /// Steps of AdamW
    #[arg(long, default_value_t = 1, value_parser = |text: &str| number::STEPS.parse(text))]
    pub steps: u64,
    /// Learning rate of each step
    #[arg(long, default_value_t = 1e-4, value_parser = |text: &str| number::LEARNING_RATE.parse(text))]
    pub learning_rate: f64,
    /// Write the trained model: in the format, names and layout of --checkpoint, in the dtype that it was trained in, with a
    /// config.json beside it. A folder, where the checkpoint is one. Never what is read; a file that is there is replaced if it is a
    /// checkpoint of weights alone
    #[arg(long, value_name = "PATH")]
    pub save: Option<PathBuf>,
    /// Write AdamW's state, to go on from: safetensors. A file that is there is replaced if it is such a state
    #[arg(long, value_name = "FILE")]
    pub save_optimizer: Option<PathBuf>,
    /// Go on with AdamW's state as --save-optimizer wrote it, beside the model that --save wrote
    #[arg(long, value_name = "FILE")]
    pub resume_optimizer: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Manifest to run: a file, or the name of one that `harness list` names
    #[arg(value_name = "MANIFEST")]
    pub manifest: PathBuf,
    #[command(flatten)]
    pub options: RunOptions,
}

#[derive(Debug, Args)]
pub struct MinmemArgs {
    /// Manifest with `host_caps = ["smallest"]`: a file, or the name of one that `harness list` names
    #[arg(value_name = "MANIFEST", default_value = "minmem")]
    pub manifest: PathBuf,
    #[command(flatten)]
    pub options: RunOptions,
}

#[derive(Debug, Args)]
pub struct RunOptions {
    /// Only these experiments of the manifest
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Vec<String>,
    /// These sizes instead of the manifest's
    #[arg(long = "size", value_name = "SIZE", value_delimiter = ',')]
    pub sizes: Vec<Size>,
    /// These devices instead of the manifest's: auto, flex, vulkan, cuda, vulkan:N, cuda:N
    #[arg(long = "device", value_name = "DEVICE", value_delimiter = ',')]
    pub devices: Vec<String>,
    /// This number of repeats instead of the manifest's
    #[arg(long, value_parser = |text: &str| number::REPEATS.parse(text))]
    pub repeats: Option<u64>,
    /// Load this checkpoint of yours instead of prepared ones, or of the manifest's: safetensors, a .pth, .pt or .bin of
    /// torch.save, burnpack, a folder of per-tensor safetensors files, or of several files with an index; its size is
    /// read off it
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Compare logits with the tensor `logits` [1, 3, vocabulary] of this file (safetensors, or a .pth of
    /// {"logits": …}) instead of computing a reference
    #[arg(long, value_name = "FILE")]
    pub reference: Option<PathBuf>,
    /// Write the logits of every run's first forward on [[1, 2, 3]] to the results' folder `logits`
    #[arg(long)]
    pub save_logits: bool,
    /// Folder of the results
    #[arg(
        long,
        value_name = "DIR",
        help = "Folder of the results [default: runs/<machine>/<manifest>, at the checkout's root]"
    )]
    pub out: Option<PathBuf>,
    /// Folder of the charts
    #[arg(
        long,
        value_name = "DIR",
        help = "Folder of the charts [default: <out>/plots]"
    )]
    pub plots: Option<PathBuf>,
    /// Call the machine this instead of what is detected
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Keep what is recorded, and run what is missing
    #[arg(long)]
    pub resume: bool,
    /// Print the plan with predicted peaks, disk and time, and run nothing: what would end a run ends this, too
    #[arg(long)]
    pub dry_run: bool,
    /// End with exit code 4 where a claim or a memory contract does not hold, for CI
    #[arg(long)]
    pub check: bool,
    #[command(flatten)]
    pub store: StoreArgs,
}

#[derive(Debug, Args)]
pub struct ResultsArgs {
    /// Folder of results
    #[arg(value_name = "DIR")]
    pub results: PathBuf,
    /// Count runs that something may have spoilt (swap, a dirty tree, …) as any other
    #[arg(long)]
    pub include_spoilt: bool,
    /// Folder of the charts
    #[arg(
        long,
        value_name = "DIR",
        help = "Folder of the charts [default: as `run` chooses it]"
    )]
    pub plots: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct AdviseArgs {
    /// Size of the model
    #[arg(long)]
    pub size: Size,
    /// Memory that is free on the host, as in 512MiB; without, what is free here now
    #[arg(long, value_name = "SIZE")]
    pub host: Option<ByteSize>,
    /// Memory that is free on the device, as in 8GiB; without, what its driver says is free here now. Without this and --device
    /// the model goes into the host's memory
    #[arg(long, value_name = "SIZE")]
    pub device_free: Option<ByteSize>,
    /// Device to load to
    #[arg(long)]
    pub device: Option<DeviceSpec>,
    /// Dtype of the checkpoint
    #[arg(long, default_value = "f32")]
    pub dtype: Dtype,
    /// Machine whose times are told; without, this one, or the only one that has any
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Folder of results that times are taken from; may be given several times
    #[arg(
        long,
        value_name = "DIR",
        help = "Folder of the results that times are taken from [default: runs, and results]"
    )]
    pub results: Vec<PathBuf>,
    #[command(flatten)]
    pub format: FormatArgs,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Experiment to explain
    #[arg(value_name = "EXPERIMENT")]
    pub experiment: String,
    /// Folder of results to look in
    #[arg(
        long,
        value_name = "DIR",
        help = "Folder of results to look in [default: the newest below runs, or else below results, that has a run of it]"
    )]
    pub results: Option<PathBuf>,
    /// Of this size; without, the largest that ran
    #[arg(long)]
    pub size: Option<Size>,
    /// On this device; without, one with memory of its own where one ran
    #[arg(long)]
    pub device: Option<DeviceSpec>,
    /// This very run, by its run_id
    #[arg(long, value_name = "RUN_ID", conflicts_with_all = ["size", "device"])]
    pub run: Option<String>,
    #[command(flatten)]
    pub format: FormatArgs,
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Folder of results, or a runs.csv, to compare with
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// Folder of results, or a runs.csv, that is compared
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    /// Growth of a median peak (host heap, device in use) that is no regression, in percent; 1 MiB never is
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0, value_parser = percent)]
    pub tolerance: f64,
    /// Count spoilt runs as any other
    #[arg(long)]
    pub include_spoilt: bool,
    #[command(flatten)]
    pub format: FormatArgs,
}

#[derive(Debug, Args)]
pub struct OverheadArgs {
    /// Experiments to load with
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_values = ["mmap-assign", "per-tensor"])]
    pub only: Vec<String>,
    /// Size of the model
    #[arg(long, default_value = "medium")]
    pub size: Size,
    /// Device to load to
    #[arg(long, default_value = "flex")]
    pub device: DeviceSpec,
    /// Pairs of loads for each experiment
    #[arg(long, default_value_t = 20, value_parser = |text: &str| number::PAIRS.parse(text))]
    pub pairs: u64,
    /// File of the pairs
    #[arg(
        long,
        value_name = "FILE",
        help = "File of the pairs [default: runs/<machine>/overhead.csv, at the checkout's root]"
    )]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub store: StoreArgs,
}

fn percent(text: &str) -> Result<f64, String> {
    number::PERCENT.parse(text.trim_end_matches('%').trim())
}

#[derive(Debug, Args)]
pub struct PublishArgs {
    /// Folder of results, as `run` wrote it
    #[arg(value_name = "DIR")]
    pub results: PathBuf,
    /// Also where sources differed from the commit that the rows name
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct RegenerateArgs {
    /// Write nothing; name every file that would change, and every link that leads nowhere, and fail if there is one
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell to complete for
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Command to describe
    pub command: Option<String>,
}

#[derive(Debug, Args)]
pub struct DeriveArgs {
    #[arg(long)]
    pub checkpoint: PathBuf,
    #[arg(long)]
    pub size: Size,
    #[arg(long)]
    pub format: Format,
    #[arg(long)]
    pub to: PathBuf,
}

#[derive(Debug, Args)]
pub struct ReferenceArgs {
    #[arg(long)]
    pub checkpoint: PathBuf,
    #[arg(long)]
    pub layout: Option<PathBuf>,
    #[arg(long)]
    pub key: Option<String>,
    #[arg(long)]
    pub size: Size,
    #[arg(long)]
    pub to: PathBuf,
}

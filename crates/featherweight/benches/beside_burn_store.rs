//! The library beside burn-store's own stores, on one module of a Llama's shape and more than 1 GiB: each load in a process of
//! its own, taking turns, five of each. With `--write`, README's table is made of it.
//!
//! ```text
//! cargo bench --package featherweight --bench beside_burn_store -- --write
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn_flex::{Flex, FlexDevice};
use burn_store::{ModuleSnapshot, PyTorchToBurnAdapter, PytorchStore, SafetensorsStore};
use checkpoint::{Dtype, Format, TensorMeta};
use featherweight::Store;
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const ROUNDS: usize = 5;
const WIDTH: usize = 2048;
const INNER: usize = 5504;
const LAYERS: usize = 5;
const VOCABULARY: usize = 16_000;
const MIB: f64 = (1 << 20) as f64;

type B = Flex;

#[derive(Module, Debug)]
struct Llama<B: burn::tensor::backend::Backend> {
    embed_tokens: Embedding<B>,
    layers: Vec<Layer<B>>,
    norm: RmsNorm<B>,
    lm_head: Linear<B>,
}

#[derive(Module, Debug)]
struct Layer<B: burn::tensor::backend::Backend> {
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    o_proj: Linear<B>,
    gate_proj: Linear<B>,
    up_proj: Linear<B>,
    down_proj: Linear<B>,
    input_layernorm: RmsNorm<B>,
    post_attention_layernorm: RmsNorm<B>,
}

fn lazy() -> Llama<B> {
    let device = &FlexDevice;
    let linear = |inputs, outputs| {
        LinearConfig::new(inputs, outputs)
            .with_bias(false)
            .init(device)
    };
    let norm = || RmsNormConfig::new(WIDTH).init(device);
    Llama {
        embed_tokens: EmbeddingConfig::new(VOCABULARY, WIDTH).init(device),
        layers: (0..LAYERS)
            .map(|_| Layer {
                q_proj: linear(WIDTH, WIDTH),
                k_proj: linear(WIDTH, WIDTH),
                v_proj: linear(WIDTH, WIDTH),
                o_proj: linear(WIDTH, WIDTH),
                gate_proj: linear(WIDTH, INNER),
                up_proj: linear(WIDTH, INNER),
                down_proj: linear(INNER, WIDTH),
                input_layernorm: norm(),
                post_attention_layernorm: norm(),
            })
            .collect(),
        norm: norm(),
        lm_head: linear(WIDTH, VOCABULARY),
    }
}

/// The tensors as PyTorch has them.
fn tensors() -> Vec<TensorMeta> {
    let meta = |name: String, shape: &[usize]| TensorMeta {
        name,
        dtype: Dtype::F32,
        shape: shape.to_vec(),
    };
    let mut tensors = vec![meta("embed_tokens.weight".to_owned(), &[VOCABULARY, WIDTH])];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("q_proj", [WIDTH, WIDTH]),
            ("k_proj", [WIDTH, WIDTH]),
            ("v_proj", [WIDTH, WIDTH]),
            ("o_proj", [WIDTH, WIDTH]),
            ("gate_proj", [INNER, WIDTH]),
            ("up_proj", [INNER, WIDTH]),
            ("down_proj", [WIDTH, INNER]),
        ] {
            tensors.push(meta(format!("layers.{layer}.{name}.weight"), &shape));
        }
        for name in ["input_layernorm", "post_attention_layernorm"] {
            // burn-store 0.21 does not rename what RmsNorm has.
            tensors.push(meta(format!("layers.{layer}.{name}.gamma"), &[WIDTH]));
        }
    }
    tensors.push(meta("norm.gamma".to_owned(), &[WIDTH]));
    tensors.push(meta("lm_head.weight".to_owned(), &[VOCABULARY, WIDTH]));
    tensors
}

fn model_bytes() -> u64 {
    tensors().iter().map(TensorMeta::bytes).sum()
}

fn write(path: &Path, format: Format) {
    if path.exists() {
        return;
    }
    let piece: Vec<u8> = (0..1u32 << 16)
        .flat_map(|at| ((at % 1009) as f32 / 1009.0).to_le_bytes())
        .collect();
    let written = checkpoint::write(path, format, &tensors(), &mut |meta, sink| {
        let mut left = meta.bytes() as usize;
        while left > 0 {
            let length = left.min(piece.len());
            sink(&piece[..length])?;
            left -= length;
        }
        Ok(())
    });
    written.expect("the checkpoint is written");
}

/// A loader, its file, and how it loads.
struct Loader {
    name: &'static str,
    format: Format,
    load: fn(&Path, &mut Llama<B>),
}

const LOADERS: [Loader; 6] = [
    Loader {
        name: "featherweight, streamed, `.safetensors`",
        format: Format::Safetensors,
        load: |path, model| ours(path, model, false),
    },
    Loader {
        name: "featherweight, two threads, `.safetensors`",
        format: Format::Safetensors,
        load: |path, model| ours(path, model, true),
    },
    Loader {
        name: "burn-store's `SafetensorsStore`",
        format: Format::Safetensors,
        load: |path, model| {
            let store = SafetensorsStore::from_file(path);
            let mut store = store.with_from_adapter(PyTorchToBurnAdapter);
            model.load_from(&mut store).expect("burn-store loads it");
        },
    },
    Loader {
        name: "featherweight, streamed, `.pth`",
        format: Format::Pth,
        load: |path, model| ours(path, model, false),
    },
    Loader {
        name: "featherweight, two threads, `.pth`",
        format: Format::Pth,
        load: |path, model| ours(path, model, true),
    },
    Loader {
        name: "burn-store's `PytorchStore`",
        format: Format::Pth,
        load: |path, model| {
            let mut store = PytorchStore::from_file(path);
            model.load_from(&mut store).expect("burn-store loads it");
        },
    },
];

fn ours(path: &Path, model: &mut Llama<B>, is_parallel: bool) {
    let store = Store::open(path).expect("it opens");
    let mut store = match is_parallel {
        true => store.with(|load| load.parallel(2)),
        false => store,
    };
    model.load_from(&mut store).expect("it loads");
}

/// Seconds, and the resident set's peak above what was there before, in bytes.
#[derive(Clone, Copy)]
struct Measured {
    seconds: f64,
    resident_bytes: u64,
}

fn resident(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let found = status.lines().find_map(|text| text.strip_prefix(line));
    let kib = found.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.expect("it is a number") << 10
}

/// Under a hypervisor that takes free pages back, their first touch is up to 20 times slower, and after a program of many small
/// pages there are no huge ones: otherwise chance, or who ran before, decides.
fn touch_free_memory(bytes: usize) {
    let mut map = memmap2::MmapMut::map_anon(bytes).expect("there is memory");
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    map.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(&map);
}

/// In a process of its own.
fn measure(loader: &Loader, path: &Path) {
    let mut model = lazy();
    touch_free_memory(3 * model_bytes() as usize);
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux resets its marks");
    let before = resident("VmRSS:");
    let start = Instant::now();
    (loader.load)(path, &mut model);
    let seconds = start.elapsed().as_secs_f64();
    let peak = resident("VmHWM:").saturating_sub(before);
    let sum: f32 = model.layers[LAYERS - 1]
        .down_proj
        .weight
        .val()
        .slice([0..1, 0..8])
        .into_data()
        .to_vec::<f32>()
        .expect("floats")
        .iter()
        .sum();
    println!("{seconds} {peak} {sum}");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("beside-burn-store");
    let path = |format: Format| folder.join(format.file_name());
    if let [flag, number, ..] = &arguments[..]
        && flag == "--loader"
    {
        let loader = &LOADERS[number.parse::<usize>().expect("a number")];
        return measure(loader, &path(loader.format));
    }
    if !arguments
        .iter()
        .any(|argument| argument == "--bench" || argument == "--write")
    {
        // `cargo test --benches` asks whether it runs, and not for figures.
        return;
    }
    std::fs::create_dir_all(&folder).expect("the folder is made");
    for format in [Format::Safetensors, Format::Pth] {
        write(&path(format), format);
    }
    let program = std::env::current_exe().expect("this program has a path");
    let mut measured: BTreeMap<usize, Vec<Measured>> = BTreeMap::new();
    for round in 0..=ROUNDS {
        let mut sums = Vec::new();
        for (number, loader) in LOADERS.iter().enumerate() {
            let ran = Command::new(&program)
                .args(["--loader", &number.to_string()])
                .output()
                .expect("it starts");
            let said = String::from_utf8_lossy(&ran.stdout).into_owned();
            assert!(
                ran.status.success(),
                "{}",
                String::from_utf8_lossy(&ran.stderr)
            );
            let words: Vec<&str> = said.split_whitespace().collect();
            sums.push(words[2].to_owned());
            eprintln!(
                "round {round}: {} s, {} MiB: {}",
                words[0],
                words[1].parse::<u64>().expect("bytes") >> 20,
                loader.name
            );
            // The first round brings the files into the page cache.
            if round > 0 {
                measured.entry(number).or_default().push(Measured {
                    seconds: words[0].parse().expect("seconds"),
                    resident_bytes: words[1].parse().expect("bytes"),
                });
            }
        }
        sums.dedup();
        assert_eq!(sums.len(), 1, "every loader gives the same model");
    }
    let table = table(&measured);
    println!("{table}");
    if arguments.iter().any(|argument| argument == "--write") {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let text = std::fs::read_to_string(&readme).expect("there is one");
        let (begin, end) = ("<!-- table begins -->\n", "<!-- table ends -->");
        let (before, rest) = text.split_once(begin).expect("the table has a place");
        let (_, after) = rest.split_once(end).expect("the table has an end");
        std::fs::write(&readme, format!("{before}{begin}{table}{end}{after}"))
            .expect("it is written");
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn table(measured: &BTreeMap<usize, Vec<Measured>>) -> String {
    let mut table = String::from(
        "| loader | seconds, median (least to most) | times burn-store's | resident peak, of the model |\n|---|---|---|---|\n",
    );
    let seconds = |number: usize| median(measured[&number].iter().map(|one| one.seconds));
    for (number, loader) in LOADERS.iter().enumerate() {
        let all = &measured[&number];
        let least = all.iter().map(|one| one.seconds).fold(f64::MAX, f64::min);
        let most = all.iter().map(|one| one.seconds).fold(0.0, f64::max);
        let beside = LOADERS
            .iter()
            .position(|other| other.format == loader.format && other.name.starts_with("burn-store"))
            .expect("each format has one");
        let peak = median(all.iter().map(|one| one.resident_bytes as f64)) / model_bytes() as f64;
        writeln!(
            table,
            "| {} | {:.2} ({least:.2} to {most:.2}) | {:.3} | {peak:.2} × |",
            loader.name,
            seconds(number),
            seconds(number) / seconds(beside),
        )
        .expect("a text takes it");
    }
    writeln!(
        table,
        "\n{ROUNDS} loads each, taking turns, each in a process of its own that has touched free memory before; {:.0} MiB of f32 in PyTorch's layout, in the page cache; \
         flex, {} CPUs, {}.",
        model_bytes() as f64 / MIB,
        std::thread::available_parallelism().map_or(1, usize::from),
        std::env::consts::ARCH,
    )
    .expect("a text takes it");
    table
}

//! The layouts of real checkpoints beside a plain one, by every carrier: the shapes of GPT-2 medium, on flex and on Vulkan, taking
//! turns. The same bytes are taken for each layout, from one file in `checkpoints/`, which stays warm.
//!
//! ```text
//! cargo bench --package featherweight --bench layouts            all
//! cargo bench --package featherweight --bench layouts -- flex    those whose name has this in it
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::backend::Backend;
use burn_flex::{Flex, FlexDevice};
use burn_wgpu::Wgpu;
use checkpoint::{Dtype, TensorRange, read_at};
use featherweight::carry::{Access, Carrier, Source, carry};
use featherweight::place::{Fill, Place, Staging};
use featherweight::{Unobserved, Way};

#[path = "../tests/common/gpu.rs"]
mod gpu;

const ROUNDS: usize = 5;
const LAYERS: usize = 24;
const WIDTH: usize = 1024;
const VOCABULARY: usize = 50_257;
const PIECE_BYTES: u64 = 4 << 20;

#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// As it is wanted in memory.
    Plain,
    /// Linear weights as PyTorch has them.
    Transposed,
    /// Query, key and value beside each other, as in Hugging Face's GPT-2.
    Fused,
    /// Both: they lie one below the other, transposed.
    FusedTransposed,
}

const LAYOUTS: [(&str, Layout); 4] = [
    ("plain", Layout::Plain),
    ("transposed", Layout::Transposed),
    ("fused", Layout::Fused),
    ("fused, transposed", Layout::FusedTransposed),
];

/// The tensors of the file, in its order.
fn tensors(file: &Arc<Path>, layout: Layout) -> Vec<TensorRange> {
    let mut offset = 0;
    let mut stored = |rows: usize, columns: usize| {
        let tensor = TensorRange {
            name: format!("{offset}"),
            dtype: Dtype::F32,
            shape: vec![rows, columns],
            strides: vec![columns, 1],
            file: Arc::clone(file),
            offset,
        };
        offset += tensor.bytes();
        tensor
    };
    let linear = |stored: TensorRange| match layout {
        Layout::Transposed | Layout::FusedTransposed => stored.transposed(),
        _ => stored,
    };
    let mut tensors = vec![stored(VOCABULARY, WIDTH)];
    for _ in 0..LAYERS {
        match layout {
            Layout::Plain => tensors.push(stored(WIDTH, 3 * WIDTH)),
            Layout::Transposed => tensors.push(linear(stored(3 * WIDTH, WIDTH))),
            Layout::Fused => {
                let fused = stored(WIDTH, 3 * WIDTH);
                for part in 0..3 {
                    let mut part_of = fused.clone();
                    part_of.offset += part * WIDTH as u64 * 4;
                    part_of.shape[1] = WIDTH;
                    tensors.push(part_of);
                }
            }
            Layout::FusedTransposed => {
                let fused = stored(3 * WIDTH, WIDTH);
                for part in 0..3 {
                    let rows = part * WIDTH..(part + 1) * WIDTH;
                    tensors.push(linear(fused.clone().narrowed(rows)));
                }
            }
        }
        for (rows, columns) in [(1, 1), (4, 1), (1, 4)] {
            tensors.push(linear(stored(rows * WIDTH, columns * WIDTH)));
        }
    }
    tensors.push(linear(stored(VOCABULARY, WIDTH)));
    tensors
}

fn model_bytes(tensors: &[TensorRange]) -> u64 {
    tensors.iter().map(TensorRange::bytes).sum()
}

/// Any bytes do: nobody computes with them.
fn write(path: &Path, bytes: u64) {
    let fitting = path.metadata().is_ok_and(|there| there.len() == bytes);
    if fitting {
        return;
    }
    let mut file = File::create(path).unwrap();
    let piece: Vec<u8> = (0..1 << 20u32).map(|at| (at * 31 % 251) as u8).collect();
    for start in (0..bytes).step_by(piece.len()) {
        let length = (bytes - start).min(piece.len() as u64) as usize;
        std::io::Write::write_all(&mut file, &piece[..length]).unwrap();
    }
    file.sync_all().unwrap();
}

/// Seconds for two threads that read the file into fresh memory, and do nothing else.
fn floor(path: &Path, tensors: &[TensorRange]) -> f64 {
    let place = Place::<Flex>::new(&FlexDevice, Arc::new(Unobserved));
    let start = Instant::now();
    let file = File::open(path).unwrap();
    let shapes = tensors.iter().map(|tensor| &tensor.shape);
    let mut fillings: Vec<_> = shapes
        .map(|shape| place.begin(shape, burn::tensor::DType::F32).unwrap())
        .collect();
    let mut at = 0;
    let jobs = fillings.iter_mut().flat_map(|filling| {
        let memory = filling.fill().memory().unwrap();
        memory.chunks_mut(PIECE_BYTES as usize)
    });
    let jobs = jobs.map(|piece| {
        at += piece.len() as u64;
        (at - piece.len() as u64, piece)
    });
    let jobs = std::sync::Mutex::new(jobs);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = jobs.lock().unwrap().next();
                    let Some((offset, piece)) = next else { return };
                    assert_eq!(read_at(&file, piece, offset).unwrap(), piece.len());
                }
            });
        }
    });
    start.elapsed().as_secs_f64()
}

/// Seconds for a load: memory is taken, filled, and finished.
fn load<B: Backend>(device: &B::Device, tensors: &[TensorRange], carrier: Carrier) -> f64 {
    let place = Place::<B>::new(device, Arc::new(Unobserved));
    // Larger ones would be refused.
    let most = place.max_tensor_bytes().unwrap_or(u64::MAX);
    let fitting = tensors.iter().filter(|tensor| tensor.bytes() <= most);
    let sources: Vec<Source> = fitting.cloned().map(Source::as_stored).collect();
    let start = Instant::now();
    let mut fillings: Vec<_> = sources
        .iter()
        .map(|source| {
            let shape = &source.tensor.shape;
            place.begin(shape, source.cast.dtype()).unwrap()
        })
        .collect();
    let mut fills: Vec<&mut dyn Fill> = fillings.iter_mut().map(|one| one.fill()).collect();
    let staging = Staging::default();
    carry(&sources, &mut fills, carrier, staging, &Unobserved).unwrap();
    place.finish().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    drop(fillings);
    if place.way() == Way::InPieces {
        B::sync(device).unwrap();
        B::memory_cleanup(device);
        B::sync(device).unwrap();
    }
    seconds
}

fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Every layout after the other, many times: medians, and medians of each round's ratios to the floor and to plain.
fn compare<B: Backend>(name: &str, path: &Path, device: &B::Device, carrier: Carrier) {
    let file: Arc<Path> = path.into();
    let layouts = LAYOUTS.map(|(_, layout)| tensors(&file, layout));
    let mut floors = Vec::new();
    let mut seconds = [const { Vec::new() }; LAYOUTS.len()];
    for _ in 0..ROUNDS {
        floors.push(floor(path, &layouts[0]));
        for (tensors, seconds) in layouts.iter().zip(&mut seconds) {
            seconds.push(load::<B>(device, tensors, carrier));
        }
    }
    for ((layout, _), of) in LAYOUTS.iter().zip(&seconds) {
        let ratio_to = |to: &[f64]| {
            let ratios: Vec<f64> = of.iter().zip(to).map(|(one, to)| one / to).collect();
            median(&ratios)
        };
        println!(
            "{name:<16} {layout:<18} {:>7.3} s  {:>6.2} x floor ({:.3} s) {:>6.2} x plain",
            median(of),
            ratio_to(&floors),
            median(&floors),
            ratio_to(&seconds[0]),
        );
    }
}

fn main() {
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../checkpoints");
    std::fs::create_dir_all(&folder).unwrap();
    let path: PathBuf = folder.join("layouts.bin");
    let all = tensors(&path.as_path().into(), Layout::Plain);
    write(&path, model_bytes(&all));
    let threads = |access| Carrier::Threads { threads: 2, access };
    let carriers = [
        ("streamed", Carrier::Stream),
        ("parallel", threads(Access::Buffered)),
        ("direct", threads(Access::Direct)),
        ("io_uring", Carrier::Uring { depth: 4 }),
    ];
    let vulkan = gpu::vulkan();
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|part| name.contains(part));
    for (name, carrier) in carriers {
        let on_flex = format!("flex {name}");
        if is_wanted(&on_flex) {
            compare::<Flex>(&on_flex, &path, &FlexDevice, carrier);
        }
        let on_vulkan = format!("vulkan {name}");
        if is_wanted(&on_vulkan)
            && let Some(device) = &vulkan
        {
            compare::<Wgpu>(&on_vulkan, &path, device, carrier);
        }
    }
}

//! How lean it is on flex: the model once, and a few MiB. By a counting allocator, and by who is told of mapped memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn_flex::Flex;
use checkpoint::{Dtype, Format, TensorMeta};
use featherweight::{Load, Observe, open, save};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;
const LAYERS: usize = 12;
const WIDTH: usize = 1024;
const MODEL_BYTES: usize = LAYERS * (WIDTH * WIDTH + WIDTH) * 4;

#[derive(Module, Debug)]
struct Stack<B: burn::tensor::backend::Backend> {
    layers: Vec<Linear<B>>,
}

fn lazy() -> Stack<Flex> {
    let linear = || LinearConfig::new(WIDTH, WIDTH).init(&Default::default());
    Stack {
        layers: (0..LAYERS).map(|_| linear()).collect(),
    }
}

/// Memory that is mapped now, and the most that ever was beside the heap.
#[derive(Default)]
struct Counter {
    mapped: AtomicUsize,
    peak: AtomicUsize,
}

impl Counter {
    fn all(&self) -> usize {
        HEAP.current_usage() + self.mapped.load(Ordering::SeqCst)
    }

    fn look(&self) {
        self.peak.fetch_max(self.all(), Ordering::SeqCst);
    }
}

impl Observe for Counter {
    fn enter(&self, _: featherweight::Phase) {
        self.look();
    }

    fn mark(&self) {
        self.look();
    }

    fn mapped(&self, bytes: usize) {
        self.mapped.fetch_add(bytes, Ordering::SeqCst);
        self.look();
    }

    fn unmapped(&self, bytes: usize) {
        self.look();
        self.mapped.fetch_sub(bytes, Ordering::SeqCst);
    }
}

fn write(path: &Path) {
    let metas: Vec<TensorMeta> = (0..LAYERS)
        .flat_map(|layer| {
            let meta = |name: &str, shape: &[usize]| TensorMeta {
                name: format!("layers.{layer}.{name}"),
                dtype: Dtype::F32,
                shape: shape.to_vec(),
            };
            [meta("weight", &[WIDTH, WIDTH]), meta("bias", &[WIDTH])]
        })
        .collect();
    let row: Vec<u8> = (0..WIDTH)
        .flat_map(|at| (at as f32).to_le_bytes())
        .collect();
    checkpoint::write_with_metadata(
        path,
        Format::Safetensors,
        &metas,
        &BTreeMap::new(),
        &mut |meta, sink| (0..meta.bytes() as usize / row.len()).try_for_each(|_| sink(&row)),
    )
    .unwrap();
}

/// The most that was held while `work` ran, above what is held before. Heap and mapped memory are at their peaks together, or the
/// sum of both peaks is an upper bound.
fn peak_bytes<T>(counter: &Arc<Counter>, work: impl FnOnce() -> T) -> (usize, T) {
    let before = counter.all();
    counter.peak.store(0, Ordering::SeqCst);
    HEAP.reset_peak_usage();
    let result = work();
    counter.look();
    let heap_alone = HEAP.peak_usage();
    let peak = counter.peak.load(Ordering::SeqCst).max(heap_alone);
    (peak.saturating_sub(before), result)
}

/// One test, for the allocator counts the whole process.
#[test]
fn a_load_takes_the_model_once_whether_lazy_or_initialised_and_a_map_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path);
    let counter = Arc::new(Counter::default());
    let load = |how: fn(Load) -> Load| {
        let checkpoint = open(&path).unwrap();
        how(checkpoint.load().observed(counter.clone()))
    };
    let ways: [fn(Load) -> Load; 2] = [Load::streamed, |load| load.parallel(2)];
    for how in ways {
        let (peak, loaded) = peak_bytes(&counter, || load(how).into(lazy()).unwrap());
        assert!(
            (MODEL_BYTES..=MODEL_BYTES + 8 * MIB).contains(&peak),
            "{peak} bytes for a model of {MODEL_BYTES}"
        );
        assert!(
            loaded
                .1
                .loaded
                .iter()
                .filter(|one| one.is_transposed)
                .count()
                == LAYERS
        );
        let (model, _) = loaded;
        // What it holds is let go of first.
        let (peak, again) = peak_bytes(&counter, move || load(how).into(model).unwrap());
        assert!(
            peak <= 8 * MIB,
            "{peak} bytes more for a model that was there"
        );
        // Beside a clone that keeps what it has, it is the model once more.
        let clone = again.0.clone();
        let (peak, again) = peak_bytes(&counter, || load(how).into(again.0).unwrap());
        assert!(
            (MODEL_BYTES..=MODEL_BYTES + 8 * MIB).contains(&peak),
            "{peak}"
        );
        drop((clone, again));
    }

    // In Burn's own layout the file's pages are the parameters.
    let (model, _) = load(Load::streamed).into(lazy()).unwrap();
    let own = folder.path().join("own.safetensors");
    let (peak, saved) = peak_bytes(&counter, || save(&model).to(&own).unwrap());
    assert!(peak <= 16 * MIB, "saving took {peak} bytes");
    assert_eq!(saved.bytes as usize, MODEL_BYTES);
    let mapped = || {
        let checkpoint = open(&own).unwrap();
        // SAFETY: nobody writes to the file.
        let load = unsafe { checkpoint.load().mapped() };
        load.observed(counter.clone()).into(lazy()).unwrap()
    };
    let (peak, (mapped, _)) = peak_bytes(&counter, mapped);
    assert!(peak <= 8 * MIB, "mapping took {peak} bytes");
    for (one, other) in model.layers.iter().zip(&mapped.layers) {
        one.weight
            .val()
            .into_data()
            .assert_eq(&other.weight.val().into_data(), true);
    }
}

//! Mapped pages as a tensor's memory: nothing is copied until somebody writes, and then the pages that are written. In a
//! test binary of its own: the allocator counts everything that happens in the process.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use burn::tensor::Tensor;
use checkpoint::{Checkpoint, Dtype, Format, PrivateMap, TensorMeta};
use gpt2::{Config, Gpt2};
use lab::meter::{CountingAllocator, ProcessMemory};
use lab::{
    BackendKind, CacheState, Contract, DeviceSpec, Error, Experiment, Footprint, HostLimits,
    MemoryModel, Phase, Platform, Reads, Run, RunSpec, Status, Tuning, worker,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const MIB: u64 = 1 << 20;
const ROWS: usize = 16 << 10;
const COLUMNS: usize = 1 << 10;

/// What the run saw: heap and private memory after the view, after a part of it was written, and after all of it was.
static SEEN: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());
static FILE: Mutex<Option<PathBuf>> = Mutex::new(None);

struct InPlace;

impl Experiment for InPlace {
    const NAME: &'static str = "in-place";
    const SUMMARY: &'static str = "writes to mapped pages";
    const READS: Reads = Reads::Nothing;

    fn contract(_: MemoryModel, size: Footprint) -> Contract {
        Contract::unified(size.model_bytes)
    }

    fn load<B: Platform>(run: &Run<B>) -> Result<Gpt2<B>, Error> {
        let path = FILE.lock().unwrap().clone().unwrap();
        let checkpoint = Checkpoint::open(&path)?;
        let (heap, anon) = (
            CountingAllocator::current_bytes(),
            ProcessMemory::now().unwrap().anon_bytes,
        );
        let see = || {
            let now = ProcessMemory::now().unwrap().anon_bytes;
            let heap_now = CountingAllocator::current_bytes();
            let seen = (heap_now.saturating_sub(heap), now.saturating_sub(anon));
            SEEN.lock().unwrap().push(seen);
        };
        run.enter(Phase::Read);
        // SAFETY: nobody else writes to the file.
        let map = unsafe { PrivateMap::new(&checkpoint.tensors()[0], 0..ROWS)? };
        map.populate();
        let tensor: Tensor<B, 1> = run.view(map)?;
        see();
        // The tensor is the only one over these pages, so that Burn writes in place.
        let tensor = tensor.reshape([ROWS, COLUMNS]);
        let rows = Tensor::<B, 2>::ones([1024, COLUMNS], &run.device);
        let tensor = tensor.slice_assign([0..1024, 0..COLUMNS], rows);
        see();
        let tensor = tensor * 2.0;
        see();
        assert_eq!(tensor.slice([0..1, 0..1]).into_scalar_f32(), 2.0);
        let mut model = run.lazy_model();
        run.materialise(&mut model);
        Ok(model)
    }
}

trait IntoScalarF32 {
    fn into_scalar_f32(self) -> f32;
}

impl<B: Platform> IntoScalarF32 for Tensor<B, 2> {
    fn into_scalar_f32(self) -> f32 {
        self.into_data().iter::<f32>().next().unwrap()
    }
}

fn write_file(path: &Path) -> Vec<u8> {
    let meta = TensorMeta {
        name: "a".to_owned(),
        dtype: Dtype::F32,
        shape: vec![ROWS, COLUMNS],
    };
    let piece: Vec<u8> = 3.0f32.to_le_bytes().repeat(1 << 18);
    checkpoint::write(path, Format::Safetensors, &[meta], &mut |meta, sink| {
        (0..meta.bytes() / MIB).try_for_each(|_| sink(&piece))
    })
    .unwrap();
    let mut start = vec![0; 1 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open(path).unwrap(), &mut start).unwrap();
    start
}

#[test]
fn a_write_copies_the_pages_that_it_writes_and_never_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let before = write_file(&path);
    *FILE.lock().unwrap() = Some(path.clone());
    let outcome = worker::execute::<InPlace>(&RunSpec {
        config: Config {
            vocabulary: 257,
            context: 64,
            embedding: 48,
            layers: 2,
            heads: 4,
            qkv_bias: true,
        },
        variant: InPlace::NAME.to_owned(),
        tuning: Tuning::default(),
        dtype: Dtype::F32,
        device: DeviceSpec {
            backend: BackendKind::Flex,
            index: 0,
        },
        cache: CacheState::Warm,
        checkpoint: path.clone(),
        digests: Default::default(),
        reference_logits: None,
        save_logits: None,
        forward_in_software: false,
        host: HostLimits::default(),
        last_words: None,
        only_time: false,
    });
    assert_eq!(outcome.status, Status::Ok, "{:?}", outcome.reason);
    let seen = SEEN.lock().unwrap();
    let [
        (view_heap, view_anon),
        (part_heap, part_anon),
        (all_heap, all_anon),
    ] = seen[..]
    else {
        panic!("three looks");
    };
    let bytes = (ROWS * COLUMNS * 4) as u64;
    assert!(
        view_heap < MIB && view_anon < MIB,
        "a view: {view_heap} {view_anon}"
    );
    // A sixteenth was written; the ones that were written from are 4 MiB, and may linger.
    assert!(part_heap < 5 * MIB, "heap {part_heap}");
    assert!(
        (4 * MIB..10 * MIB).contains(&part_anon),
        "private {part_anon}"
    );
    assert!(all_heap < 5 * MIB, "heap {all_heap}");
    assert!(
        (bytes..bytes + 8 * MIB).contains(&all_anon),
        "private {all_anon}"
    );
    let mut after = vec![0; 1 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open(&path).unwrap(), &mut after).unwrap();
    assert!(before == after, "the file was written");
}

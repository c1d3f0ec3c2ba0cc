//! Mapped pages as a tensor's memory: nothing is copied until somebody writes, and then the pages that are written. In a
//! test binary of its own: the allocator counts everything that happens in the process.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use burn::tensor::Tensor;
use checkpoint::{Checkpoint, Dtype, Format, PrivateMap, TensorMeta};
use gpt2::{Config, Gpt2};
use lab::{
    BackendKind, Contract, DeviceSpec, Error, Experiment, Footprint, MemoryModel, Phase, Platform,
    Reads, Run, RunSpec, Status, Tuning, worker,
};
use meter::{CacheState, CountingAllocator, HostLimits, ProcessMemory};

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
        // A sixteenth of it and the rest, as two parameters.
        let view = |rows: Range<usize>| -> Result<Tensor<B, 2>, Error> {
            let tensor = &checkpoint.tensors()[0];
            // SAFETY: nobody else writes to the file.
            let map = unsafe { PrivateMap::new(tensor, rows.clone())? };
            map.populate();
            Ok(run.place.view(&tensor.clone().narrowed(rows), map)?)
        };
        let (small, large) = (view(0..1024)?, view(1024..ROWS)?);
        see();
        // Each is the only one over its pages, so that Burn writes in place.
        let small = small * 2.0;
        see();
        let large = large * 2.0;
        see();
        for tensor in [small, large] {
            assert_eq!(tensor.into_data().iter::<f32>().next(), Some(6.0));
        }
        let mut model = run.lazy_model();
        run.materialise(&mut model);
        Ok(model)
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
        reading: gpt2::layout::Reading::default(),
        is_reference_given: false,
        config: Config {
            vocabulary: 257,
            context: 64,
            embedding: 48,
            layers: 2,
            heads: 4,
            qkv_bias: true,
            variant: Default::default(),
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
    assert!(part_heap < MIB, "heap {part_heap}");
    assert!(
        (4 * MIB..5 * MIB).contains(&part_anon),
        "private {part_anon}"
    );
    assert!(all_heap < MIB, "heap {all_heap}");
    assert!(
        (bytes..bytes + 8 * MIB).contains(&all_anon),
        "private {all_anon}"
    );
    let mut after = vec![0; 1 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open(&path).unwrap(), &mut after).unwrap();
    assert!(before == after, "the file was written");
}

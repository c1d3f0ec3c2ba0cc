//! The instruments against each other: known patterns, loaded as an experiment loads, and what each instrument says
//! of them. In a test binary of its own: the allocator counts everything that happens in the process, and one
//! test at a time may happen in it.

use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use burn::tensor::TensorData;
use gpt2::{Config, Gpt2};
use lab::meter::{CountingAllocator, LastWords, Stage};
use lab::{
    BackendKind, CacheState, Contract, DeviceSpec, Error, Experiment, Footprint, HostLimits,
    MemoryModel, Outcome, Phase, Platform, Reads, Run, RunSpec, Status, Tuning, find_devices,
    worker,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const MIB: u64 = 1 << 20;
/// How far the kernel's mark of the resident set may be off: it adds up what it counts for each CPU in batches of
/// 64 pages. And the pages of this program that a pattern touches first.
fn slack_bytes() -> u64 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    64 * 4096 * cpus as u64 + MIB / 4
}

/// A pattern, and then a tiny model, so that the run can be verified.
macro_rules! pattern {
    ($unit:ident, $name:literal, $run:ident => $body:block) => {
        struct $unit;

        impl Experiment for $unit {
            const NAME: &'static str = $name;
            const SUMMARY: &'static str = "a known pattern";
            const READS: Reads = Reads::Nothing;

            fn contract(_: MemoryModel, size: Footprint) -> Contract {
                Contract::discrete(size.model_bytes, size.model_bytes)
            }

            fn load<B: Platform>($run: &Run<B>) -> Result<Gpt2<B>, Error> {
                $run.enter(Phase::Read);
                $body
                $run.enter(Phase::Materialise);
                let mut model = $run.lazy_model();
                $run.materialise(&mut model);
                Ok(model)
            }
        }
    };
}

pattern!(Nothing, "nothing", run => {});
pattern!(Spike, "spike", run => {
    // Filled at once, and gone two milliseconds later.
    let spike = black_box(vec![1u8; (64 * MIB) as usize]);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2) {
        black_box(&spike);
    }
});
pattern!(HalfTouchedMap, "half-touched-map", run => {
    let file = std::fs::File::open(map_path()).expect("the test has written it");
    // SAFETY: nobody writes to the file any more.
    let map = unsafe { memmap2::Mmap::map(&file) }.expect("a file can be mapped");
    let touched = map[..map.len() / 2].iter().step_by(4096);
    black_box(touched.map(|&byte| u64::from(byte)).sum::<u64>());
});
pattern!(DeviceBuffer, "device-buffer", run => {
    // On the device, and dropped before the next mark.
    let values = vec![1.0f32; (32 * MIB / 4) as usize];
    let elements = values.len();
    drop(run.upload(TensorData::new(values, [elements]))?);
});

fn map_path() -> PathBuf {
    std::env::temp_dir().join(format!("instruments-{}.map", std::process::id()))
}

fn run<E: Experiment>(backend: BackendKind, last_words: Option<PathBuf>) -> Outcome {
    let config = Config {
        vocabulary: 257,
        context: 64,
        embedding: 48,
        layers: 2,
        heads: 4,
        qkv_bias: true,
        variant: Default::default(),
    };
    let outcome = worker::execute::<E>(&RunSpec {
        reading: lab::Reading::default(),
        config,
        variant: E::NAME.to_owned(),
        tuning: Tuning::default(),
        dtype: checkpoint::Dtype::F32,
        device: DeviceSpec { backend, index: 0 },
        cache: CacheState::Warm,
        checkpoint: PathBuf::new(),
        digests: Default::default(),
        reference_logits: None,
        is_reference_given: false,
        save_logits: None,
        forward_in_software: false,
        host: HostLimits::default(),
        last_words,
        only_time: false,
    });
    assert_eq!(
        outcome.status,
        Status::Ok,
        "{}: {:?}",
        E::NAME,
        outcome.reason
    );
    outcome
}

/// What the pattern added to a measure. Both runs have everything else in common.
fn added(measure: fn(&Outcome) -> Option<u64>, with: &Outcome, without: &Outcome) -> Option<u64> {
    Some(measure(with)?.saturating_sub(measure(without)?))
}

#[test]
fn every_instrument_sees_what_it_says_it_sees() {
    let flex = BackendKind::Flex;
    // The first run of a process sets things up that stay.
    run::<Nothing>(flex, None);
    let nothing = run::<Nothing>(flex, None);
    let small = nothing.measures.host_heap_peak_bytes.unwrap();
    assert!(small < MIB, "the model is tiny: {small}");

    // A spike of two milliseconds: the exact instruments see all of it, however short.
    let spike = run::<Spike>(flex, None);
    assert_eq!(
        spike.measures.host_heap_peak_bytes,
        Some(64 * MIB),
        "to the byte"
    );
    assert_eq!(spike.measures.host_peak_phase.as_deref(), Some("read"));
    if let Some(resident) = spike.measures.host_rss_peak_bytes {
        let apart = resident.abs_diff(64 * MIB);
        assert!(apart <= slack_bytes(), "resident {resident} for 64 MiB");
        // The sampled one may miss it, and never sees more than there was.
        let sampled = spike.measures.host_anon_peak_bytes.unwrap();
        assert!(
            sampled <= resident,
            "sampled {sampled}, resident {resident}"
        );
        assert!(
            spike
                .timeline
                .iter()
                .all(|sample| sample.host_anon_bytes <= resident)
        );
    }

    // A map of which half is touched: file pages, no heap, and the kernel's mark holds them.
    let mut file = std::fs::File::create(map_path()).unwrap();
    file.write_all(&vec![1; (64 * MIB) as usize]).unwrap();
    file.sync_all().unwrap();
    let map = run::<HalfTouchedMap>(flex, None);
    std::fs::remove_file(map_path()).unwrap();
    let heap = added(
        |outcome| outcome.measures.host_heap_peak_bytes,
        &map,
        &nothing,
    );
    assert!(heap.unwrap() < MIB / 64, "a map is no heap: {heap:?}");
    if let Some(resident) = map.measures.host_rss_peak_bytes {
        let apart = resident.abs_diff(32 * MIB);
        assert!(apart <= slack_bytes(), "resident {resident} for 32 MiB");
        let sampled = map.measures.host_file_peak_bytes.unwrap();
        assert!(sampled <= 32 * MIB + slack_bytes(), "file pages {sampled}");
    }

    // What it was doing is on the disk, for whoever outlives it.
    let words = tempfile::NamedTempFile::new().unwrap();
    run::<Spike>(flex, Some(words.path().to_owned()));
    let last = LastWords::read(words.path()).unwrap();
    assert_eq!((last.stage, last.sample), (Stage::Verify, None));

    // Without a device of its own nothing is said of one.
    assert_eq!(nothing.measures.device_in_use_peak_bytes, None);
    assert_eq!(nothing.measures.device_pool_used_peak_bytes, None);

    // A device buffer that is freed at once is seen by the device's own count, for the mark is read before.
    let vulkan = find_devices()
        .into_iter()
        .find(|device| device.spec.backend == BackendKind::Vulkan && device.state.is_ok());
    if vulkan.is_none() {
        assert!(
            std::env::var_os("REQUIRE_VULKAN").is_none(),
            "no Vulkan device"
        );
        return;
    }
    // Once: a process opens a device once.
    let with = run::<DeviceBuffer>(BackendKind::Vulkan, None);
    assert_eq!(with.measures.device_in_use_peak_bytes, Some(32 * MIB));
    assert_eq!(with.measures.device_peak_phase.as_deref(), Some("read"));
    assert!(with.measures.device_reserved_peak_bytes.unwrap() >= 32 * MIB);
    let last = with.timeline.last().unwrap();
    let left = last.device_in_use_bytes.unwrap();
    assert!(
        left < MIB,
        "the buffer is gone, and the model is tiny: {left}"
    );
}

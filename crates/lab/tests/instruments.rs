//! The instruments as a worker reads them: known patterns, loaded as an experiment loads. In a test binary of its own: the allocator counts everything that happens in the process, and one
//! test at a time may happen in it.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use burn::tensor::TensorData;
use gpt2::{Config, Gpt2};
use lab::{
    BackendKind, Contract, DeviceSpec, Error, Experiment, Footprint, MemoryModel, Outcome, Phase,
    Platform, Reads, Run, RunSpec, Status, Tuning, find_devices, worker,
};
use meter::{CacheState, CountingAllocator, HostLimits, LastWords, Stage};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const MIB: u64 = 1 << 20;

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
pattern!(DeviceBuffer, "device-buffer", run => {
    // On the device, and dropped before the next mark.
    let values = vec![1.0f32; (32 * MIB / 4) as usize];
    let elements = values.len();
    drop(run.upload(TensorData::new(values, [elements]))?);
});

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
        reading: gpt2::layout::Reading::default(),
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

#[test]
fn a_worker_tells_of_its_load_what_the_instruments_saw_of_it() {
    let flex = BackendKind::Flex;
    // The first run of a process sets things up that stay.
    run::<Nothing>(flex, None);
    let nothing = run::<Nothing>(flex, None);
    let small = nothing.measures.host_heap_peak_bytes.unwrap();
    assert!(small < MIB, "the model is tiny: {small}");

    // Nothing of what the worker does before and after is in it.
    let spike = run::<Spike>(flex, None);
    assert_eq!(
        spike.measures.host_heap_peak_bytes,
        Some(64 * MIB),
        "to the byte"
    );
    assert_eq!(spike.measures.host_peak_phase.as_deref(), Some("read"));

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

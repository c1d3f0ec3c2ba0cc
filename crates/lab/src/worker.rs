//! One run, from the open device to the verified model, in a process of its own.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::backend::BackendTypes;
use burn::tensor::{DType, Distribution, Element, Tensor, set_default_dtypes};
use checkpoint::{Digest, Dtype};
use gpt2::Gpt2;

use crate::meter::{
    Diary, Disturbances, Disturbed, Instruments, LastWords, Panics, Peaks, Recorder, Stage,
};
use crate::outcome::{Outcome, Status};
use crate::{
    BackendKind, CacheState, DeviceSpec, Error, Experiment, Footprint, Host, HostLimits,
    MemoryModel, Platform, Reads, Run, devices, reference, verify,
};

/// What a worker is to do.
#[derive(Debug)]
pub struct RunSpec {
    /// The model's dimensions.
    pub config: gpt2::Config,
    /// The dtype of the checkpoint.
    pub dtype: Dtype,
    /// The device to load to.
    pub device: DeviceSpec,
    /// The state of the page cache to load from.
    pub cache: CacheState,
    /// The checkpoint; of the format that the experiment reads.
    pub checkpoint: PathBuf,
    /// The digest of every tensor of the checkpoint.
    pub digests: BTreeMap<String, Digest>,
    /// Logits to compare with; without them forward runs, and its logits need only be finite.
    pub reference_logits: Option<PathBuf>,
    /// Where to write this run's logits.
    pub save_logits: Option<PathBuf>,
    /// Runs forward even on a device that compiles its kernels in software, which takes 12 s and more.
    pub forward_in_software: bool,
    /// What the run may use of the host's memory.
    pub host: HostLimits,
    /// A file that always tells what the run is doing, should it be ended.
    pub last_words: Option<PathBuf>,
    /// Takes the load's time and no other measure: what measuring costs is the difference.
    pub only_time: bool,
}

/// Runs `E` as `spec` says. Whatever goes wrong is in the outcome.
pub fn execute<E: Experiment>(spec: &RunSpec) -> Outcome {
    Panics::watch();
    if let Some(Err(error)) = spec.host.cgroup.as_ref().map(crate::Cgroup::join) {
        let reason = format!("the run's cgroup could not be entered: {error}");
        return Outcome::ended(Status::Skipped, reason);
    }
    let run = AssertUnwindSafe(|| devices::dispatch::<E>(spec));
    let result = std::panic::catch_unwind(run).unwrap_or_else(|_| {
        let message = Panics::first().unwrap_or_else(|| "a panic".to_owned());
        Err(Error::from_panic(message))
    });
    result.unwrap_or_else(|error| ended(&error))
}

fn ended(error: &Error) -> Outcome {
    let status = match error {
        Error::OutOfMemory(_) => Status::Oom,
        Error::CacheState { .. } | Error::Unsupported { .. } | Error::HostCap { .. } => {
            Status::Skipped
        }
        _ => Status::Failed,
    };
    let mut outcome = Outcome::ended(status, error.to_string());
    if let Error::CacheState {
        resident_fraction, ..
    } = error
    {
        outcome.resident_fraction = Some(*resident_fraction);
    }
    outcome
}

pub(crate) fn execute_on<E: Experiment, B: Platform>(spec: &RunSpec) -> Result<Outcome, Error> {
    E::applies(B::MEMORY).map_err(|reason| Error::Unsupported {
        device: spec.device.to_string(),
        reason: reason.to_owned(),
    })?;
    let diary = spec.last_words.as_deref().and_then(Diary::open);
    let diary = diary.map(Arc::new);
    let arrive = |stage| {
        if let Some(diary) = &diary {
            diary.write(&LastWords {
                stage,
                sample: None,
            });
        }
    };
    arrive(Stage::SetUp);
    let mut driver = B::watch_driver(spec.device.index);
    let device = open_device::<B>(spec)?;
    warm_up::<B>(&device)?;
    spec.host.impose()?;
    let resident_fraction = match E::READS {
        Reads::Nothing => None,
        Reads::StateDict | Reads::PerTensor => {
            let is_capped = spec.host.cgroup.is_some() && spec.host.cap_bytes.is_some();
            spec.cache.establish(&spec.checkpoint, is_capped)?
        }
    };
    let max_tensor_bytes = B::max_tensor_bytes(&device);
    let footprint = Footprint::new(&spec.config, spec.dtype, max_tensor_bytes);
    let contract = E::contract(B::MEMORY, footprint);

    let for_recorder = device.clone();
    let instruments = Instruments {
        read_device: Box::new(move || B::memory(&for_recorder)),
        read_driver: driver.as_mut().and_then(|driver| driver.read_own()),
        cgroup: spec.host.cgroup.as_ref(),
        diary: diary.clone(),
    };
    let disturbances = Disturbances::watch();
    let pool_before = B::reset_pool_peak(&device);
    let run = Run::<B> {
        config: spec.config,
        dtype: spec.dtype,
        device: device.clone(),
        checkpoint: spec.checkpoint.clone(),
        max_tensor_bytes,
        recorder: match spec.only_time {
            true => Recorder::clock(),
            false => Recorder::start(instruments),
        },
    };
    let model = E::load(&run)?;
    B::finish(&device)?;
    let peaks = run.recorder.finish();
    let pool = B::pool_peak(&device).zip(pool_before);
    let pool = pool.map(|(peak, before)| peak.above(before));
    let Disturbed {
        major_faults,
        mut spoilt_by,
    } = disturbances.sum_up(
        spec.cache,
        spec.host.cap_bytes.is_some(),
        peaks.swap_peak_bytes,
    );
    spoilt_by.extend(driver.as_ref().and_then(|driver| driver.others()));
    arrive(Stage::Verify);

    let mut outcome = Outcome {
        device_pool_used_peak_bytes: pool.map(|pool| pool.in_use_bytes),
        device_pool_reserved_peak_bytes: pool.map(|pool| pool.reserved_bytes),
        major_faults,
        spoilt_by,
        host_contract_bytes: Some(contract.host_heap_bytes),
        device_contract_bytes: contract.device_bytes,
        resident_fraction,
        ..measured::<B>(&peaks, &device)
    };
    match verified::<E, B>(spec, model, &device, &peaks, footprint, &mut outcome) {
        Ok(()) => outcome.verified = true,
        Err(error) => {
            outcome.status = ended(&error).status;
            outcome.reason = Some(error.to_string());
        }
    }
    Ok(outcome)
}

/// Opens the device, and makes the run's dtype the default of what is created there and on the host.
fn open_device<B: Platform>(spec: &RunSpec) -> Result<B::Device, Error> {
    let device = B::open(spec.device.index)?;
    let dtype = match spec.dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::Bf16 => DType::BF16,
    };
    let refused = |error| Error::Unsupported {
        device: spec.device.to_string(),
        reason: format!("cannot compute in {}: {error}", spec.dtype),
    };
    // f32 is the default already, and on bf16 software Vulkan would have to be asked first: a tensor of an
    // unsupported dtype poisons its server (CubeCL 0.10). This call asks.
    if spec.dtype != Dtype::F32 {
        set_default_dtypes::<B>(&device, dtype, <B as BackendTypes>::IntElem::dtype())
            .map_err(refused)?;
        if spec.device.backend != BackendKind::Flex {
            let ints = <Host as BackendTypes>::IntElem::dtype();
            set_default_dtypes::<Host>(&Default::default(), dtype, ints).map_err(refused)?;
        }
    }
    B::seed(&device, 0x6665_6174_6865_7221);
    Ok(device)
}

/// The first allocation and the first kernels of each kind that initialisation uses: setting up the
/// runtime is no part of a load.
fn warm_up<B: Platform>(device: &B::Device) -> Result<(), Error> {
    for distribution in [
        Distribution::Normal(0.0, 1.0),
        Distribution::Uniform(-1.0, 1.0),
    ] {
        drop(Tensor::<B, 1>::random([64], distribution, device));
    }
    drop(Tensor::<B, 1>::ones([64], device) + Tensor::<B, 1>::zeros([64], device));
    B::finish(device)?;
    B::memory_cleanup(device);
    B::finish(device)
}

fn measured<B: Platform>(peaks: &Peaks, device: &B::Device) -> Outcome {
    // Some versions of Mesa's software driver keep their buffers in shared memory, which the kernel counts
    // apart; others in anonymous memory, and then there is nothing to tell.
    let shared = peaks.shared_peak_bytes.filter(|&bytes| bytes > 0);
    let shared = shared.filter(|_| B::compiles_in_software(device));
    Outcome {
        status: Status::Ok,
        reason: None,
        load_seconds: Some(peaks.load_seconds),
        host_rss_baseline_bytes: peaks.rss_baseline_bytes,
        host_heap_peak_bytes: peaks.heap_peak_bytes,
        host_rss_peak_bytes: peaks.rss_peak_bytes,
        host_anon_peak_bytes: peaks.anon_peak_bytes,
        host_file_peak_bytes: peaks.file_peak_bytes,
        host_cgroup_peak_bytes: peaks.cgroup_peak_bytes,
        host_peak_phase: peaks.host_peak_phase.map(|phase| phase.to_string()),
        device_in_use_peak_bytes: peaks.device_in_use_peak_bytes,
        device_reserved_peak_bytes: peaks.device_reserved_peak_bytes,
        device_driver_peak_bytes: peaks.driver_peak_bytes.or(shared),
        device_peak_phase: peaks.device_peak_phase.map(|phase| phase.to_string()),
        bytes_read: peaks.bytes_read,
        timeline: peaks.timeline.clone(),
        ..Outcome::ended(Status::Ok, "")
    }
}

/// Everything that decides whether the numbers may be shown.
fn verified<E: Experiment, B: Platform>(
    spec: &RunSpec,
    mut model: Gpt2<B>,
    device: &B::Device,
    peaks: &Peaks,
    footprint: Footprint,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    if let Some(in_use) = peaks.device_in_use_bytes
        && !spec.only_time
        && B::MEMORY == MemoryModel::Discrete
        && in_use < footprint.model_bytes
    {
        return Err(Error::Verification(format!(
            "the device holds {in_use} bytes after the load, and the model has {}",
            footprint.model_bytes
        )));
    }
    match E::READS {
        Reads::Nothing => verify::initial_weights(&mut model, &spec.config, spec.dtype)?,
        Reads::StateDict | Reads::PerTensor => {
            verify::digests(&mut model, &spec.config, &spec.digests)?;
        }
    }
    if spec.forward_in_software || !B::compiles_in_software(device) {
        let start = Instant::now();
        let logits = B::logits(&model, &reference::REFERENCE_TOKENS, device)?;
        outcome.first_forward_seconds = Some(start.elapsed().as_secs_f64());
        if let Some(path) = &spec.save_logits {
            reference::save(&logits, path)?;
        }
        if !logits.iter().all(|value| value.is_finite()) {
            return Err(Error::Verification(
                "forward gave logits that are not finite".to_owned(),
            ));
        }
        if let Some(path) = spec
            .reference_logits
            .as_ref()
            .filter(|_| E::READS != Reads::Nothing)
        {
            let expected = reference::read_logits(path, spec.config.vocabulary)?;
            verify::logits(&logits, &expected, reference::logits_tolerance(spec.dtype))?;
        }
    }
    match Panics::first() {
        None => Ok(()),
        Some(message) => Err(Error::from_panic(format!("a thread panicked: {message}"))),
    }
}

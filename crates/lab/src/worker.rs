//! One run, from the open device to the verified model, in a process of its own.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use burn::tensor::backend::BackendTypes;
use burn::tensor::{DType, Distribution, Element, Tensor, set_default_dtypes};
use checkpoint::{Digest, Dtype};
use featherweight::place::Place;
use gpt2::Gpt2;
use gpt2::layout::{Layouts, Reading};
use meter::{
    BusError, CacheError, CacheState, Cgroup, Diary, Disturbances, HostLimits, Instruments,
    LastWords, Panics, Peaks, Process, Recorder, Stage, tell_bus_errors, touch_free_memory,
};

use crate::observed::Observed;
use crate::outcome::{Outcome, Status};
use crate::{
    BackendKind, Compared, DeviceSpec, Error, Experiment, Footprint, Host, Kept, Logits, Measures,
    MemoryModel, Platform, Reads, Run, Target, Tuning, VerifiedBy, devices, reference, verify,
};

/// What a worker is to do.
#[derive(Debug)]
pub struct RunSpec {
    /// The model's dimensions.
    pub config: gpt2::Config,
    /// The experiment, or the variant of it: [`Experiment::NAME`], or a name of [`Experiment::VARIANTS`].
    pub variant: String,
    /// The dtype of the checkpoint.
    pub dtype: Dtype,
    /// What the technique works with.
    pub tuning: Tuning,
    /// The device to load to.
    pub device: DeviceSpec,
    /// The state of the page cache to load from.
    pub cache: CacheState,
    /// The checkpoint; of the format that the experiment reads.
    pub checkpoint: PathBuf,
    /// How it is read.
    pub reading: Reading,
    /// The digest of every tensor of the checkpoint.
    pub digests: BTreeMap<String, Digest>,
    /// Logits to compare with; without them forward runs, and its logits need only be finite.
    pub reference_logits: Option<PathBuf>,
    /// Whether another program has computed them.
    pub is_reference_given: bool,
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
    tell_bus_errors(BusError::Signal);
    if let Some(Err(error)) = spec.host.cgroup.as_ref().map(Cgroup::join) {
        let reason = format!("the run's cgroup could not be entered: {error}");
        return Outcome::ended(Status::Skipped, reason);
    }
    let measured = Measured(spec, PhantomData::<E>);
    let run = AssertUnwindSafe(|| devices::dispatch(spec.device, measured));
    let result = std::panic::catch_unwind(run).unwrap_or_else(|_| {
        let message = Panics::first().unwrap_or_else(|| "a panic".to_owned());
        Err(Error::from_panic(message))
    });
    let mut outcome = result.unwrap_or_else(|error| {
        // What a device says of a write says less than the panic of the thread that made it.
        let panicked = Panics::check().map_err(Error::from);
        match (&error, panicked) {
            (Error::Device { .. }, Err(panicked)) => ended(&panicked),
            _ => ended(&error),
        }
    });
    if spec.host.cap_bytes.is_some() && outcome.reason.as_deref().is_some_and(is_refused_thread) {
        outcome.status = Status::Oom;
    }
    if outcome.status == Status::Oom
        && let Some(room) = devices::room(spec.device)
    {
        let reason = outcome.reason.unwrap_or_default();
        outcome.reason = Some(format!("{reason}; {room}"));
    }
    outcome
}

/// Whether a thread could not be started: under a cap, because its stack found no room (`EAGAIN` and `ENOMEM`, pthread_create(3)).
fn is_refused_thread(reason: &str) -> bool {
    let is_thread = ["thread", "ThreadPool"]
        .iter()
        .any(|word| reason.contains(word));
    let refusals = ["Resource temporarily unavailable", "Cannot allocate memory"];
    is_thread && refusals.iter().any(|words| reason.contains(words))
}

fn ended(error: &Error) -> Outcome {
    let status = match error {
        Error::OutOfMemory(_) => Status::Oom,
        Error::Cache(CacheError::NotReached { .. })
        | Error::Unsupported { .. }
        | Error::HostCap(_)
        | Error::Checkpoint(checkpoint::Error::NoDirectIo { .. }) => Status::Skipped,
        _ => Status::Failed,
    };
    let mut outcome = Outcome::ended(status, error.to_string());
    if let Error::Cache(CacheError::NotReached {
        resident_fraction, ..
    }) = error
    {
        outcome.measures.resident_fraction = Some(*resident_fraction);
    }
    outcome
}

/// The run that is measured.
struct Measured<'a, E>(&'a RunSpec, PhantomData<E>);

impl<E: Experiment> devices::OnBackend for Measured<'_, E> {
    type Output = Outcome;

    fn on<B: Platform>(self) -> Result<Outcome, Error> {
        execute_on::<E, B>(self.0)
    }
}

/// What is loaded where, and what becomes of it.
pub(crate) fn target_of<E: Experiment, B: Platform>(
    spec: &RunSpec,
) -> Result<(Target, Kept), Error> {
    let variants = E::VARIANTS.iter().map(|variant| variant.name);
    let known = std::iter::once(E::NAME).chain(variants);
    let variant = known
        .into_iter()
        .find(|name| *name == spec.variant)
        .ok_or_else(|| Error::Setup(format!("{} is no way of {}", spec.variant, E::NAME)))?;
    let target = Target {
        variant,
        memory: B::MEMORY,
        dtype: spec.dtype,
    };
    E::applies(target).map_err(|reason| Error::Unsupported {
        device: spec.device.to_string(),
        reason: reason.to_owned(),
    })?;
    Ok((target, E::keeps(target)))
}

/// What the experiment sees of the run. The recorder is started last: what the rest takes is no part of a load.
pub(crate) fn run_of<B: Platform>(
    spec: &RunSpec,
    variant: &'static str,
    dtype: Dtype,
    device: B::Device,
    recorder: impl FnOnce() -> Recorder,
) -> Result<Run<B>, Error> {
    let observed = Arc::new(Observed::default());
    let run = Run {
        config: spec.config,
        stored: spec.dtype,
        dtype,
        variant,
        tuning: spec.tuning,
        max_tensor_bytes: B::max_tensor_bytes(&device),
        place: Place::new(&device, observed.clone()),
        device,
        checkpoint: spec.checkpoint.clone(),
        layouts: Layouts::of(&spec.reading)?,
        opened: OnceLock::new(),
        observed,
    };
    run.observed.start(recorder());
    Ok(run)
}

fn execute_on<E: Experiment, B: Platform>(spec: &RunSpec) -> Result<Outcome, Error> {
    let (target, kept) = target_of::<E, B>(spec)?;
    let dtype = kept.dtype(spec.dtype);
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
    let device = open_device::<B>(spec, dtype)?;
    warm_up::<B>(&device)?;
    spec.host.impose()?;
    let resident_fraction = match E::READS {
        Reads::Nothing => None,
        Reads::StateDict | Reads::Only(_) => {
            let is_capped = spec.host.cgroup.is_some() && spec.host.cap_bytes.is_some();
            spec.cache.establish(&spec.checkpoint, is_capped)?
        }
    };
    let max_tensor_bytes = B::max_tensor_bytes(&device);
    let footprint = Footprint::new(&spec.config, spec.dtype, max_tensor_bytes, spec.tuning);
    let footprint = footprint.on(spec.device.backend);
    let contract = E::contract(B::MEMORY, footprint);
    if spec.host.cap_bytes.is_none() {
        let on_device = match B::is_in_host_memory(&device) {
            true => contract.device_bytes.unwrap_or(0),
            false => 0,
        };
        touch_free_memory(contract.host_heap_bytes + on_device);
    }

    let for_recorder = device.clone();
    let instruments = Instruments {
        read_device: Box::new(move || B::memory(&for_recorder)),
        read_driver: driver.as_mut().and_then(|driver| driver.read_own()),
        cgroup: spec.host.cgroup.as_ref(),
        diary: diary.clone(),
    };
    let disturbances = Disturbances::watch(Process::Own);
    let pool_before = B::reset_pool_peak(&device);
    let recorder = || match spec.only_time {
        true => Recorder::clock(),
        false => Recorder::start(instruments),
    };
    let run = run_of::<B>(spec, target.variant, dtype, device.clone(), recorder)?;
    let mut model = E::load(&run)?;
    B::finish(&device)?;
    let load_seconds = run.observed.stop_clock();
    // A model that does not hold all its layers holds the most while forward goes through it.
    let forward = match E::STREAMS_LAYERS && !spec.only_time {
        true => Some(forward::<E, B>(&run, &mut model)?),
        false => None,
    };
    let peaks = run.observed.finish();
    let pool = B::pool_peak(&device).zip(pool_before);
    let pool = pool.map(|(peak, before)| peak.above(before));
    let mut measures = Measures {
        load_seconds: Some(load_seconds),
        device_pool_used_peak_bytes: pool.map(|pool| pool.in_use_bytes),
        device_pool_reserved_peak_bytes: pool.map(|pool| pool.reserved_bytes),
        other_device_processes: driver.as_ref().and_then(|driver| driver.others()),
        host_contract_bytes: Some(contract.host_heap_bytes),
        host_locked_peak_bytes: (spec.device.backend == BackendKind::Cuda)
            .then(|| run.observed.locked_peak_bytes()),
        device_contract_bytes: contract.device_bytes,
        device_reserved_contract_bytes: contract.reserved_bytes,
        resident_fraction,
        ..measured::<B>(&peaks, &device)
    };
    measures.add_disturbances(disturbances.sum_up());
    arrive(Stage::Verify);

    let mut outcome = Outcome {
        status: Status::Ok,
        reason: None,
        verified: false,
        verified_by: None,
        measures,
        timeline: peaks.timeline.clone(),
    };
    let mut verification = Verification {
        spec,
        run: &run,
        model,
        kept,
        forward,
        least_device_bytes: footprint.model_bytes,
        outcome: &mut outcome,
    };
    match verification.verify::<E>(&peaks) {
        Ok(()) => outcome.verified = true,
        Err(error) => {
            // What a panic led to says less than the panic: bytes that are wrong, mostly.
            let error = Panics::check().map_or_else(Error::from, |()| error);
            outcome.status = ended(&error).status;
            outcome.reason = Some(error.to_string());
        }
    }
    Ok(outcome)
}

/// The logits for the reference tokens, and the seconds that they took.
fn forward<E: Experiment, B: Platform>(
    run: &Run<B>,
    model: &mut Gpt2<B>,
) -> Result<(Vec<f32>, f64), Error> {
    let start = Instant::now();
    let mut bring = |model: &mut Gpt2<B>, layer| E::bring_layer(run, model, layer);
    let logits = B::logits(model, &reference::REFERENCE_TOKENS, &run.device, &mut bring)?;
    Ok((logits, start.elapsed().as_secs_f64()))
}

/// Opens the device, and makes the run's dtype the default of what is created there and on the host.
pub(crate) fn open_device<B: Platform>(spec: &RunSpec, dtype: Dtype) -> Result<B::Device, Error> {
    let device = B::open(spec.device.index)?;
    let unable = |reason: String| Error::Unsupported {
        device: spec.device.to_string(),
        reason: format!("cannot compute in {dtype}: {reason}"),
    };
    let burn_dtype = match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::Bf16 => DType::BF16,
        Dtype::I8 => {
            return Err(unable(
                "it is what quantised weights are stored in".to_owned(),
            ));
        }
        _ => return Err(unable("no model is of it".to_owned())),
    };
    if let Some(reason) = B::lacks(&device, dtype) {
        return Err(unable(reason));
    }
    let refused = |error| unable(format!("{error}"));
    // f32 is the default already, and on bf16 software Vulkan would have to be asked first: a tensor of an
    // unsupported dtype poisons its server (CubeCL 0.10). This call asks.
    if dtype != Dtype::F32 {
        set_default_dtypes::<B>(&device, burn_dtype, <B as BackendTypes>::IntElem::dtype())
            .map_err(refused)?;
        if spec.device.backend != BackendKind::Flex {
            let ints = <Host as BackendTypes>::IntElem::dtype();
            set_default_dtypes::<Host>(&Default::default(), burn_dtype, ints).map_err(refused)?;
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

fn measured<B: Platform>(peaks: &Peaks, device: &B::Device) -> Measures {
    // Some versions of Mesa's software driver keep their buffers in shared memory, which the kernel counts
    // apart; others in anonymous memory, and then there is nothing to tell.
    let shared = peaks.shared_peak_bytes.filter(|&bytes| bytes > 0);
    let shared = shared.filter(|_| B::compiles_in_software(device));
    Measures {
        device_driver_peak_bytes: peaks.driver_peak_bytes.or(shared),
        ..Measures::from(peaks)
    }
}

/// Everything that decides whether the numbers may be shown.
struct Verification<'a, B: Platform> {
    spec: &'a RunSpec,
    run: &'a Run<B>,
    model: Gpt2<B>,
    kept: Kept,
    /// The first forward, where it ran before.
    forward: Option<(Vec<f32>, f64)>,
    /// What a device must hold at least, where it holds a whole model as it is stored.
    least_device_bytes: u64,
    outcome: &'a mut Outcome,
}

impl<B: Platform> Verification<'_, B> {
    fn verify<E: Experiment>(&mut self, peaks: &Peaks) -> Result<(), Error> {
        let (spec, run) = (self.spec, self.run);
        if !E::IS_YARDSTICK {
            self.check_device::<E>(peaks)?;
            let computes = !B::is_simulated(&run.device);
            // Kernels write initial weights.
            let parameters = match computes || E::READS != Reads::Nothing {
                true => Some(self.check_parameters::<E>()?),
                false => None,
            };
            self.outcome.verified_by = Some(VerifiedBy {
                parameters,
                logits: None,
            });
            let forwards = spec.forward_in_software || !B::compiles_in_software(&run.device);
            if forwards || self.forward.is_some() {
                let forward = match self.forward.take() {
                    Some(forward) => forward,
                    None => forward::<E, B>(run, &mut self.model)?,
                };
                if computes {
                    self.check_logits::<E>(forward)?;
                }
            }
        }
        Ok(Panics::check()?)
    }

    fn check_device<E: Experiment>(&self, peaks: &Peaks) -> Result<(), Error> {
        let is_whole = self.kept == Kept::Stored && !E::STREAMS_LAYERS;
        match peaks.device_in_use_bytes {
            Some(in_use)
                if is_whole
                    && !self.spec.only_time
                    && B::MEMORY == MemoryModel::Discrete
                    && in_use < self.least_device_bytes =>
            {
                Err(Error::Verification(format!(
                    "the device holds {in_use} bytes after the load, and the model has {}",
                    self.least_device_bytes
                )))
            }
            _ => Ok(()),
        }
    }

    fn check_parameters<E: Experiment>(&mut self) -> Result<Compared, Error> {
        let (spec, run, model) = (self.spec, self.run, &mut self.model);
        let bring = &mut |model: &mut Gpt2<B>, layer| E::bring_layer(run, model, layer);
        if E::READS == Reads::Nothing {
            verify::initial_weights(model, &spec.config, spec.dtype, bring)?;
            return Ok(Compared::Distribution);
        }
        match self.kept {
            Kept::Stored => {
                verify::digests(model, &spec.config, &spec.digests, bring)?;
                Ok(Compared::Digests)
            }
            Kept::Cast(dtype) => {
                let checkpoint = run.open()?;
                verify::casts(model, &spec.config, &checkpoint, dtype, bring)?;
                Ok(Compared::Rounded)
            }
            Kept::Quantised => {
                let checkpoint = run.open()?;
                let computes = !B::is_simulated(&run.device);
                verify::quantised(
                    model,
                    &spec.config,
                    &checkpoint,
                    spec.dtype,
                    computes,
                    bring,
                )?;
                Ok(Compared::Rounded)
            }
        }
    }

    fn check_logits<E: Experiment>(
        &mut self,
        (logits, seconds): (Vec<f32>, f64),
    ) -> Result<(), Error> {
        let spec = self.spec;
        self.outcome.measures.first_forward_seconds = Some(seconds);
        if let Some(path) = &spec.save_logits {
            reference::save(&logits, path)?;
        }
        if !logits.iter().all(|value| value.is_finite()) {
            return Err(Error::Verification(
                "forward gave logits that are not finite".to_owned(),
            ));
        }
        let reference = spec.reference_logits.as_ref();
        if let Some(path) = reference.filter(|_| E::READS != Reads::Nothing) {
            let expected = reference::read_logits(path, spec.config.vocabulary)?;
            let tolerance =
                reference::logits_tolerance(self.kept, spec.dtype, B::MULTIPLIES_IN_TF32);
            let error = reference::logits_error(&logits, &expected)?;
            self.outcome.measures.logits_error = Some(error);
            reference::check_logits(error, tolerance)?;
        }
        if let Some(verified_by) = &mut self.outcome.verified_by {
            let is_compared = reference.is_some() && E::READS != Reads::Nothing;
            verified_by.logits = Some(match (is_compared, spec.is_reference_given) {
                (true, true) => Logits::Given,
                (true, false) => Logits::OwnForward,
                (false, _) => Logits::Finite,
            });
        }
        Ok(())
    }
}

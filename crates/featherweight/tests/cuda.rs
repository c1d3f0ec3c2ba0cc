//! Any module on CUDA: plain, under fusion, under autodiff; and how lean it is there. Where there is no GPU, on a simulated driver
//! (`crates/simulated-cuda`): copies are real there, and kernels compiled and not executed.

mod common;
#[path = "common/lean.rs"]
mod lean;
#[path = "../../simulated-cuda/machine.rs"]
mod machine;

use std::process::Command;

use burn::tensor::backend::Backend;
use burn_autodiff::Autodiff;
use burn_cubecl::CubeBackend;
use burn_cuda::CudaDevice;
use checkpoint::Format;
use common::{Everything, check, from_pytorch, write};
use cubecl::cuda::CudaRuntime;
use featherweight::{Error, Way, open};
use machine::Simulated;
use peak_alloc::PeakAlloc;

type Plain = CubeBackend<CudaRuntime, f32, i32, u8>;
type Fused = burn_fusion::Fusion<Plain>;
type Gpu = CudaDevice;
type GpuRuntime = CudaRuntime;

/// Pieces are in page-locked memory here, which the allocator does not see: only what is transposed passes through the heap.
const LEAST_HEAP_BYTES: usize = 4 << 10;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What the program is started with again, on the simulated machine.
const AGAIN: &str = "FEATHERWEIGHT_ON_SIMULATED_CUDA";

fn main() {
    let case = std::env::var(AGAIN).ok();
    if case.as_deref() == Some("is there a GPU") {
        std::process::exit(i32::from(!has_gpu()));
    }
    // Asked in a process of its own: in this one the library is to be the first to ask anything of CUDA.
    let mut ask = Command::new(std::env::current_exe().unwrap());
    ask.env(AGAIN, "is there a GPU");
    if case.is_none() && !ask.status().unwrap().success() {
        let Some(machine) = Simulated::machine() else {
            return;
        };
        for (case, settings) in [
            ("all", &[][..]),
            ("all", &[("COPIES", "late")]),
            ("fails", &[("FAULTS", "copy:5:sticks")]),
            ("fails", &[("FAULTS", "alloc:4:sticks")]),
            ("fails", &[("FAULTS", "sync:2:sticks")]),
            ("fails", &[("FAULTS", "copy:5:hangs")]),
            ("fails", &[("FAULTS", "sync:3:hangs")]),
        ] {
            let mut again = Command::new(std::env::current_exe().unwrap());
            again.env(AGAIN, case);
            machine.offer(&mut again, settings);
            println!("on a simulated device, {settings:?}");
            assert!(again.status().unwrap().success(), "{case} {settings:?}");
        }
        each_wait_that_fails_once_is_an_error_or_does_no_harm(&machine);
        memory_that_is_refused_once_for_a_quantised_weight_is_an_error(&machine);
        return;
    }
    let device = CudaDevice::new(0);
    match case.as_deref() {
        Some("fails") => a_device_that_fails_is_an_error_within_seconds(&device),
        Some("refused once") => std::process::exit(loads_quantised(&device)),
        Some("fails once") => std::process::exit(loads_large_pieces(&device)),
        _ => {}
    }
    macro_rules! run {
        ($($case:path),*) => {$(
            $case(&device);
            println!("{} ... ok", stringify!($case));
        )*};
    }
    run!(
        lean::the_host_holds_little_and_the_device_the_model_once_plain_fused_and_under_autodiff,
        every_parameter_arrives_plain_under_fusion_and_under_autodiff_of_both,
        every_carrier_brings_the_same_whatever_the_staging
    );
}

fn has_gpu() -> bool {
    // SAFETY: looks a library up and opens it.
    (unsafe { cudarc::driver::sys::is_culib_present() })
        && cudarc::driver::result::init().is_ok()
        && cudarc::driver::result::device::get_count().is_ok_and(|count| count > 0)
}

fn loads_everything<B: Backend<Device = Gpu>>(device: &Gpu) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    let path = write(&path, Format::Safetensors, &from_pytorch());
    let checkpoint = open(&path).unwrap();
    for is_lazy in [true, false] {
        let module = match is_lazy {
            true => Everything::<B>::lazy(device),
            false => Everything::<B>::initialised(device),
        };
        let load = checkpoint.load().verified().staging_bytes(1 << 20);
        let load = match is_lazy {
            true => load.streamed(),
            false => load.parallel(2),
        };
        let (module, report) = load.into(module).unwrap();
        check(&module);
        let is_fast = |way| way == Way::InPieces;
        assert!(report.loaded.iter().all(|one| is_fast(one.way)), "{report}");
    }
}

fn every_parameter_arrives_plain_under_fusion_and_under_autodiff_of_both(device: &Gpu) {
    loads_everything::<Plain>(device);
    loads_everything::<Fused>(device);
    loads_everything::<Autodiff<Plain>>(device);
    loads_everything::<Autodiff<Fused>>(device);
}

/// Into tensors whose rows end anywhere, from another thread as well.
fn every_carrier_brings_the_same_whatever_the_staging(device: &Gpu) {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut tensors = std::collections::BTreeMap::new();
    tensors.insert("one".to_owned(), common::f32s("one", &[LARGE + 1]));
    let path = write(&folder.path().join("m"), Format::Safetensors, &tensors);
    let checkpoint = open(&path).unwrap();
    for staging_bytes in [1, 100_000, 1 << 20, 1 << 40] {
        for how in ["streamed", "parallel", "direct", "uring", "aside"] {
            let load = checkpoint.load().staging_bytes(staging_bytes);
            let load = match how {
                "parallel" => load.parallel(3),
                "direct" => load.parallel_direct(2),
                "uring" => load.uring(4),
                _ => load.streamed(),
            };
            let one = burn::module::Initializer::Zeros.init([LARGE + 1], device);
            let into = || load.into(Large::<Plain> { one });
            let loaded = match how {
                "aside" => std::thread::scope(|scope| scope.spawn(into).join().unwrap()),
                _ => into(),
            };
            match loaded {
                Ok((module, _)) => {
                    let data = module.one.val().into_data();
                    assert!(*data.bytes == *tensors["one"].2, "{how} {staging_bytes}");
                }
                Err(Error::NoUring { reason }) => eprintln!("skipped: {reason}"),
                Err(Error::Checkpoint(checkpoint::Error::NoDirectIo { .. })) => {
                    eprintln!("skipped: no direct I/O");
                }
                Err(error) => panic!("{how} {staging_bytes}: {error}"),
            }
        }
    }
}

/// The driver's error sticks somewhere in the load: it is an error of the library's, soon, and never a model.
fn a_device_that_fails_is_an_error_within_seconds(device: &Gpu) -> ! {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    let path = write(&path, Format::Safetensors, &from_pytorch());
    let started = std::time::Instant::now();
    let load = || {
        let module = Everything::<Plain>::lazy(device);
        let load = open(&path).unwrap().load().staging_bytes(1 << 20);
        load.into(module).map(drop)
    };
    // CubeCL panics in its own thread, and in this one where it is asked for something then.
    match std::panic::catch_unwind(load) {
        Ok(Err(Error::Device { reason, .. })) => assert!(!reason.is_empty()),
        Ok(Err(other)) => panic!("{other}"),
        Ok(Ok(())) => panic!("a model came of a device that fails"),
        Err(_) => panic!("the library panicked"),
    }
    // What hangs is given ten seconds.
    assert!(started.elapsed().as_secs() < 20);
    // A thread that hangs would hold the program.
    std::process::exit(0);
}

#[derive(burn::module::Module, Debug)]
struct Small<B: Backend> {
    linear: burn::nn::Linear<B>,
}

/// The device has no memory for one thing, and has some again for whatever is asked for behind it.
fn memory_that_is_refused_once_for_a_quantised_weight_is_an_error(machine: &Simulated) {
    let ends = |nth: usize| {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.env(AGAIN, "refused once");
        // CubeCL asks twice, each time in another way.
        let fault = format!("alloc:{nth},alloc:{}", nth + 1);
        machine.offer(&mut again, &[("FAULTS", &fault)]);
        let ended = again.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        let code = ended.status.code();
        assert!(
            [RIGHT, REFUSED].map(Some).contains(&code),
            "{fault}: {code:?} {said}"
        );
        code == Some(REFUSED)
    };
    let refused = (1..=8).filter(|&nth| ends(nth)).count();
    println!("of 8 allocations {refused} that are refused are an error of a load");
    // The weight's, and the bias's.
    assert!(refused >= 2);
}

fn loads_quantised(device: &Gpu) -> i32 {
    use burn::tensor::quantization::{QuantLevel, QuantParam, QuantScheme, QuantStore, QuantValue};
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = std::collections::BTreeMap::new();
    for (name, shape) in [("linear.weight", &[64, 64][..]), ("linear.bias", &[64])] {
        tensors.insert(name.to_owned(), common::f32s(name, shape));
    }
    let path = write(&folder.path().join("m"), Format::Safetensors, &tensors);
    let scheme = QuantScheme::default()
        .with_value(QuantValue::Q8S)
        .with_level(QuantLevel::block([32]))
        .with_param(QuantParam::F32)
        .with_store(QuantStore::Native);
    let linear = burn::nn::LinearConfig::new(64, 64).init(device);
    let load = open(&path).unwrap().load().quantised(scheme);
    let module = match load.into(Small::<Plain> { linear }) {
        Ok((module, _)) => module,
        Err(error) => {
            eprintln!("{error}");
            return REFUSED;
        }
    };
    match module.linear.weight.val().try_into_data() {
        Ok(data) if data.bytes.iter().any(|&byte| byte != 0) => RIGHT,
        _ => WRONG,
    }
}

/// As many pieces as would be there, were each buffer used four times.
const LARGE: usize = 4 * 8 * (64 << 10) / 4;
/// What a run ends with.
const RIGHT: i32 = 0;
const REFUSED: i32 = 3;
const WRONG: i32 = 4;
const UNREAD: i32 = 5;

#[derive(burn::module::Module, Debug)]
struct Large<B: Backend> {
    one: burn::module::Param<burn::tensor::Tensor<B, 1>>,
}

/// A piece's memory is used again when its copy is made, and nobody who waited for that in vain takes it to be.
fn each_wait_that_fails_once_is_an_error_or_does_no_harm(machine: &Simulated) {
    let mut seen = Vec::new();
    for nth in 1.. {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.env(AGAIN, "fails once");
        let fault = format!("sync:{nth}");
        machine.offer(&mut again, &[("COPIES", "late"), ("FAULTS", &fault)]);
        let ended = again.output().unwrap();
        let code = ended.status.code();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(
            [RIGHT, REFUSED, UNREAD].map(Some).contains(&code),
            "{fault}: {code:?} {said}"
        );
        seen.extend(code);
        // The first to be right is behind all waits, or is one that does no harm: a few of the latter come between.
        if seen.ends_with(&[RIGHT; 3]) {
            break;
        }
    }
    let refused = seen.iter().filter(|&&code| code == REFUSED).count();
    println!(
        "of {} waits {refused} that fail are an error of a load",
        seen.len()
    );
    assert!(refused >= 32, "each piece is waited for: {seen:?}");
}

fn loads_large_pieces(device: &Gpu) -> i32 {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = std::collections::BTreeMap::new();
    tensors.insert("one".to_owned(), common::f32s("one", &[LARGE]));
    let path = folder.path().join("m");
    let path = write(&path, Format::Safetensors, &tensors);
    let one = burn::module::Initializer::Zeros.init([LARGE], device);
    let load = open(&path).unwrap().load().staging_bytes(512 << 10);
    let module = match load.into(Large::<Plain> { one }) {
        Ok((module, _)) => module,
        Err(error) => {
            eprintln!("{error}");
            return REFUSED;
        }
    };
    match module.one.val().try_into_data() {
        Ok(data) if *data.bytes == *tensors["one"].2 => RIGHT,
        Ok(_) => WRONG,
        Err(_) => UNREAD,
    }
}

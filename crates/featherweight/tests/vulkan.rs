//! Any module on CubeCL's backends: plain, under fusion, under autodiff; and how lean it is there. One program, one case after
//! the other: the allocator counts the whole of it, and what instantiates Burn's GPU backends is built once.

mod common;
#[path = "common/gpu.rs"]
mod gpu;
#[path = "common/lean.rs"]
mod lean;

use std::collections::BTreeMap;

use burn::module::{AutodiffModule, Module, ModuleVisitor, Param};
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, DType, Int, Tensor};
use burn_autodiff::Autodiff;
use burn_cubecl::CubeBackend;
use burn_wgpu::{WgpuDevice, WgpuRuntime};
use checkpoint::Format;
use common::{Everything, check, from_pytorch, write};
use cubecl::Runtime;
use featherweight::{Way, open};
use peak_alloc::PeakAlloc;

type Plain = CubeBackend<WgpuRuntime, f32, i32, u8>;
type Fused = burn_wgpu::Vulkan;
type Gpu = WgpuDevice;
type GpuRuntime = WgpuRuntime;

/// The instrument sees the staging.
const LEAST_HEAP_BYTES: usize = 512 << 10;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

fn main() {
    let Some(device) = gpu::vulkan() else { return };
    // Of one adapter, with memory of its own.
    let setup = burn_wgpu::init_setup::<burn_wgpu::graphics::Vulkan>(&device, Default::default());
    let second = burn_wgpu::init_device(setup, Default::default());
    macro_rules! run {
        ($($case:path),*) => {$(
            $case(&device);
            println!("{} ... ok", stringify!($case));
        )*};
    }
    run!(
        lean::the_host_holds_little_and_the_device_the_model_once_plain_fused_and_under_autodiff,
        every_parameter_arrives_plain_and_under_fusion,
        every_parameter_arrives_under_autodiff_of_both,
        what_is_loaded_can_be_trained_under_autodiff_and_after_train,
        halves_are_cast_on_the_way_and_a_dtype_that_the_device_lacks_is_told_before_anything_is_read,
        a_tensor_that_the_device_cannot_bind_is_told_with_its_limit_before_anything_is_read
    );
    a_model_is_divided_among_devices_and_computes_what_it_does_on_one(&device, &second);
    println!("a_model_is_divided_among_devices_and_computes_what_it_does_on_one ... ok");
    each_device_holds_no_more_than_it_has_room_for(&device, &second);
    println!("each_device_holds_no_more_than_it_has_room_for ... ok");
}

fn loads_everything<B: Backend<Device = WgpuDevice>>(device: &WgpuDevice) {
    let folder = tempfile::tempdir().unwrap();
    let path = write(
        &folder.path().join("m"),
        Format::Safetensors,
        &from_pytorch(),
    );
    let checkpoint = open(&path).unwrap();
    for is_parallel in [false, true] {
        let module = match is_parallel {
            false => Everything::<B>::lazy(device),
            true => Everything::<B>::initialised(device),
        };
        let load = checkpoint.load().verified().staging_bytes(1 << 20);
        let load = match is_parallel {
            false => load.streamed(),
            true => load.parallel(2),
        };
        let (module, report) = load.into(module).unwrap();
        check(&module);
        assert!(
            report.loaded.iter().all(|one| one.way == Way::InPieces),
            "{report}"
        );
    }
}

fn every_parameter_arrives_plain_and_under_fusion(device: &WgpuDevice) {
    loads_everything::<Plain>(device);
    loads_everything::<Fused>(device);
}

fn every_parameter_arrives_under_autodiff_of_both(device: &WgpuDevice) {
    loads_everything::<Autodiff<Plain>>(device);
    loads_everything::<Autodiff<Fused>>(device);
}

fn what_is_loaded_can_be_trained_under_autodiff_and_after_train(device: &WgpuDevice) {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = BTreeMap::new();
    tensors.insert("weight".to_owned(), common::f32s("weight", &[4, 8]));
    tensors.insert("bias".to_owned(), common::f32s("bias", &[4]));
    let path = write(&folder.path().join("m.pth"), Format::Pth, &tensors);
    type Linear<B> = burn::nn::Linear<B>;
    let lazy = |device: &WgpuDevice| burn::nn::LinearConfig::new(8, 4).init(device);
    let (trained, _) = open(&path)
        .unwrap()
        .load()
        .into::<Autodiff<Fused>, Linear<_>>(lazy(device))
        .unwrap();
    let inner: Linear<Fused> = burn::nn::LinearConfig::new(8, 4).init(device);
    let (inner, _) = open(&path).unwrap().load().into(inner).unwrap();
    for model in [trained, inner.train::<Autodiff<Fused>>()] {
        let before = common::values(model.weight.val());
        assert_eq!(
            before,
            common::turned(&common::floats("weight", 32), [4, 8])
        );
        let x = Tensor::<Autodiff<Fused>, 2>::ones([2, 8], device);
        let loss = model.forward(x).powf_scalar(2.0).mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        assert_eq!(gradients.len(), 2, "weight and bias want gradients");
        let model = SgdConfig::new().init().step(0.1, model, gradients);
        assert_ne!(common::values(model.valid().weight.val()), before);
    }
}

fn halves_are_cast_on_the_way_and_a_dtype_that_the_device_lacks_is_told_before_anything_is_read(
    device: &WgpuDevice,
) {
    let folder = tempfile::tempdir().unwrap();
    let tensors = BTreeMap::from([("weight".to_owned(), common::f32s("weight", &[4, 8]))]);
    let path = write(&folder.path().join("m.pth"), Format::Pth, &tensors);
    let lazy = || {
        let config = burn::nn::LinearConfig::new(8, 4).with_bias(false);
        config.init::<Fused>(device)
    };
    let load = || open(&path).unwrap().load();
    let (model, report) = load().cast(DType::F16).verified().into(lazy()).unwrap();
    assert_eq!(model.weight.val().dtype(), DType::F16, "{report}");
    if !Fused::supports_dtype(device, DType::F64) {
        let said = load().cast(DType::F64).into(lazy()).unwrap_err();
        assert!(
            said.to_string().contains("does not compute in f64"),
            "{said}"
        );
    }
    assert!(lazy().num_params() > 0);
}

fn a_tensor_that_the_device_cannot_bind_is_told_with_its_limit_before_anything_is_read(
    device: &WgpuDevice,
) {
    let limit = WgpuRuntime::client(device)
        .properties()
        .memory
        .max_page_size;
    let rows = limit as usize / (1024 * 4) + 1;
    // Of holes: nobody reads it.
    let file = tempfile::NamedTempFile::with_suffix(".safetensors").unwrap();
    let bytes = rows as u64 * 1024 * 4;
    let header = format!(
        r#"{{"weight":{{"dtype":"F32","shape":[{rows},1024],"data_offsets":[0,{bytes}]}}}}"#
    );
    let head = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    std::fs::write(file.path(), &head).unwrap();
    file.as_file().set_len(head.len() as u64 + bytes).unwrap();
    let embedding = burn::nn::EmbeddingConfig::new(rows, 1024).init::<Fused>(device);
    let said = open(file.path())
        .unwrap()
        .load()
        .into(embedding)
        .unwrap_err();
    let said = said.to_string();
    assert!(
        said.contains("`weight`") && said.contains(&limit.to_string()),
        "{said}"
    );
}

/// The device of each parameter, by its path.
fn devices_of<B: Backend<Device = WgpuDevice>>(
    module: &impl Module<B>,
) -> BTreeMap<String, WgpuDevice> {
    #[derive(Default)]
    struct Devices {
        at: Vec<String>,
        found: BTreeMap<String, WgpuDevice>,
    }
    impl Devices {
        fn add(&mut self, device: WgpuDevice) {
            self.found.insert(self.at.join("."), device);
        }
    }
    impl<B: Backend<Device = WgpuDevice>> ModuleVisitor<B> for Devices {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.at.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.at.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            self.add(param.val().device());
        }
        fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
            self.add(param.val().device());
        }
        fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
            self.add(param.val().device());
        }
    }
    let mut devices = Devices::default();
    module.visit(&mut devices);
    devices.found
}

fn divides_everything<B: Backend<Device = WgpuDevice>>(one: &WgpuDevice, other: &WgpuDevice) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    let path = write(&path, Format::Safetensors, &from_pytorch());
    let checkpoint = open(&path).unwrap();
    let goes_over = |path: &str| {
        let parts = [
            "layers.1", "layers.2", "tied", "numbers", "mask", "batch", "rank5",
        ];
        parts.iter().any(|part| path.starts_with(part))
    };
    for is_lazy in [true, false] {
        let module = match is_lazy {
            true => Everything::<B>::lazy(one),
            false => Everything::<B>::initialised(one),
        };
        let (here, there) = (one.clone(), other.clone());
        let load = checkpoint.load().verified().parallel(2);
        let load = load.place(move |path| match goes_over(path) {
            true => there.clone(),
            false => here.clone(),
        });
        let (module, report) = load.into(module).unwrap();
        check(&module);
        assert!(report.loaded.iter().all(|one| one.way == Way::InPieces));
        // A tied one goes to both: it is one no more.
        assert!(
            report.loaded.iter().all(|one| one.same_as.is_none()),
            "{report}"
        );
        let devices = devices_of(&module);
        assert_eq!(devices.len(), report.loaded.len());
        for (path, device) in &devices {
            let expected = if goes_over(path) { other } else { one };
            assert_eq!(device, expected, "{path}");
        }
        // Where nothing is said, each parameter goes to where the module has it.
        let (module, _) = checkpoint.load().verified().into(module).unwrap();
        check(&module);
        assert_eq!(devices_of(&module), devices);
        // Activations are the caller's to move.
        let x = Tensor::<B, 2>::ones([2, common::WIDTH], one);
        let (first, second) = (&module.layers[0], &module.layers[1]);
        // Over the host: between devices of wgpu, Burn 0.21 cannot.
        let over = first.square.forward(x.clone()).into_data();
        let over = Tensor::<B, 2>::from_data(over, other);
        let divided = second.square.forward(over);
        let (whole, _) = checkpoint.load().into(Everything::<B>::lazy(one)).unwrap();
        let (first, second) = (&whole.layers[0], &whole.layers[1]);
        let expected = second.square.forward(first.square.forward(x));
        assert_eq!(common::values(divided), common::values(expected));
    }
}

fn a_model_is_divided_among_devices_and_computes_what_it_does_on_one(
    one: &WgpuDevice,
    other: &WgpuDevice,
) {
    divides_everything::<Plain>(one, other);
    divides_everything::<Fused>(one, other);
    divides_everything::<Autodiff<Fused>>(one, other);
    // It wants gradients as on one device.
    let folder = tempfile::tempdir().unwrap();
    let tensors = BTreeMap::from([("weight".to_owned(), common::f32s("weight", &[4, 8]))]);
    let path = write(&folder.path().join("m.pth"), Format::Pth, &tensors);
    let there = other.clone();
    let load = open(&path).unwrap().load().place(move |_| there.clone());
    let lazy = burn::nn::LinearConfig::new(8, 4)
        .with_bias(false)
        .init::<Autodiff<Plain>>(one);
    let (model, _) = load.into(lazy).unwrap();
    let x = Tensor::<Autodiff<Plain>, 2>::ones([2, 8], other);
    let gradients = model.forward(x).mean().backward();
    assert!(model.weight.val().grad(&gradients).is_some());
    // A function over what is loaded goes with its parameter.
    let column_major = burn::nn::LinearConfig::new(8, 4)
        .with_bias(false)
        .with_layout(burn::nn::LinearLayout::Col)
        .init::<Plain>(one);
    let there = other.clone();
    let load = open(&path).unwrap().load().place(move |_| there.clone());
    let (model, _) = load.into(column_major).unwrap();
    let x = Tensor::<Plain, 2>::ones([2, 8], other);
    let row_major = burn::nn::LinearConfig::new(8, 4).with_bias(false);
    let load = open(&path).unwrap().load();
    let (plain, _) = load.into(row_major.init::<Plain>(other)).unwrap();
    assert_eq!(
        common::values(model.forward(x.clone())),
        common::values(plain.forward(x))
    );
}

#[derive(Module, Debug)]
struct Stack<B: Backend> {
    layers: Vec<burn::nn::Linear<B>>,
}

fn each_device_holds_no_more_than_it_has_room_for(one: &WgpuDevice, other: &WgpuDevice) {
    const WIDTH: usize = 512;
    const LAYER_BYTES: u64 = (WIDTH * WIDTH * 4) as u64;
    let folder = tempfile::tempdir().unwrap();
    let tensors = (0..4).map(|layer| {
        let name = format!("layers.{layer}.weight");
        let stored = common::f32s(&name, &[WIDTH, WIDTH]);
        (name, stored)
    });
    let path = folder.path().join("m.pth");
    let path = write(&path, Format::Pth, &tensors.collect());
    let linear = burn::nn::LinearConfig::new(WIDTH, WIDTH).with_bias(false);
    let lazy = || Stack::<Plain> {
        layers: (0..4).map(|_| linear.init(one)).collect(),
    };
    let in_use = |device: &WgpuDevice| {
        let client = WgpuRuntime::client(device);
        client.memory_usage().unwrap().bytes_in_use
    };
    let load = || open(&path).unwrap().load().verified();
    let before = [one, other].map(in_use);
    let rooms = [LAYER_BYTES, 4 * LAYER_BYTES];
    let rooms = [(one.clone(), rooms[0]), (other.clone(), rooms[1])];
    let (model, _) = load().divided(rooms).into(lazy()).unwrap();
    let on: Vec<bool> = model
        .layers
        .iter()
        .map(|layer| layer.weight.device() == *one)
        .collect();
    assert_eq!(on, [true, false, false, false]);
    let taken = [in_use(one) - before[0], in_use(other) - before[1]];
    assert_eq!(taken, [LAYER_BYTES, 3 * LAYER_BYTES]);
    drop(model);
    let too_little = [
        (one.clone(), 2 * LAYER_BYTES - 1),
        (other.clone(), 2 * LAYER_BYTES),
    ];
    let said = load().divided(too_little).into(lazy()).unwrap_err();
    assert!(said.to_string().contains("`layers.3`"), "{said}");
    let twice = [(one.clone(), LAYER_BYTES), (one.clone(), 9 * LAYER_BYTES)];
    let said = load().divided(twice).into(lazy()).unwrap_err();
    assert!(said.to_string().contains("twice"), "{said}");
}

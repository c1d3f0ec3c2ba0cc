//! How lean it is on a device with memory of its own: twice the staging on the host, the model once on the device. Mesa's
//! software driver, or a simulated one, stands in for a GPU.

use std::path::Path;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn_autodiff::Autodiff;
use checkpoint::{Dtype, Format, TensorMeta};
use cubecl::Runtime;
use featherweight::open;

use crate::{Fused, Gpu, GpuRuntime, HEAP, LEAST_HEAP_BYTES, Plain};

const MIB: usize = 1 << 20;
const LAYERS: usize = 16;
const WIDTH: usize = 1024;
const MODEL_BYTES: usize = LAYERS * (WIDTH * WIDTH + WIDTH) * 4;
const STAGING_BYTES: usize = 4 * MIB;

#[derive(Module, Debug)]
struct Stack<B: Backend> {
    layers: Vec<Linear<B>>,
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
    checkpoint::write(path, Format::Safetensors, &metas, &mut |meta, sink| {
        (0..meta.bytes() as usize / row.len()).try_for_each(|_| sink(&row))
    })
    .unwrap();
}

fn is_lean<B: Backend<Device = Gpu>>(path: &Path, device: &Gpu, is_lazy: bool) {
    let linear = || LinearConfig::new(WIDTH, WIDTH).init::<B>(device);
    let module = Stack {
        layers: (0..LAYERS).map(|_| linear()).collect(),
    };
    if !is_lazy {
        for layer in &module.layers {
            drop((
                layer.weight.val(),
                layer.bias.as_ref().map(|bias| bias.val()),
            ));
        }
        B::sync(device).unwrap();
    }
    let in_use = || {
        let usage = GpuRuntime::client(device).memory_usage().unwrap();
        usage.bytes_in_use as usize
    };
    let before = in_use();
    let held = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let load = open(path).unwrap().load().staging_bytes(STAGING_BYTES);
    let (module, _) = load.into(module).unwrap();
    let heap = HEAP.peak_usage() - held;
    let limit = 2 * STAGING_BYTES + 8 * MIB;
    let name = std::any::type_name::<B>();
    assert!(
        heap <= limit,
        "{heap} bytes of heap, {limit} allowed: {name} {is_lazy}"
    );
    assert!(heap >= LEAST_HEAP_BYTES, "the instrument sees {heap} bytes");
    let grown = in_use().saturating_sub(before);
    let expected = match is_lazy {
        // What was dropped before may be let go of only now, under fusion: a few bytes less.
        true => MODEL_BYTES - MIB / 16..MODEL_BYTES + 8 * MIB,
        false => 0..8 * MIB,
    };
    assert!(
        expected.contains(&grown),
        "{grown} bytes on the device: {name} {is_lazy}"
    );
    drop(module);
    B::sync(device).unwrap();
    B::memory_cleanup(device);
    B::sync(device).unwrap();
}

pub fn the_host_holds_little_and_the_device_the_model_once_plain_fused_and_under_autodiff(
    device: &Gpu,
) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path);
    // Compiles its few kernels, which is no part of a load.
    is_warm::<Plain>(device);
    is_warm::<Fused>(device);
    for is_lazy in [true, false] {
        is_lean::<Plain>(&path, device, is_lazy);
        is_lean::<Fused>(&path, device, is_lazy);
        is_lean::<Autodiff<Plain>>(&path, device, is_lazy);
        is_lean::<Autodiff<Fused>>(&path, device, is_lazy);
    }
}

fn is_warm<B: Backend<Device = Gpu>>(device: &Gpu) {
    let linear = LinearConfig::new(8, 8).init::<B>(device);
    let data = linear.weight.val().into_data();
    assert_eq!(data.num_elements(), 64);
}

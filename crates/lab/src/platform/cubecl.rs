//! What the CubeCL platforms share.

use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use burn::tensor::quantization::{QParamTensor, QParams, QuantScheme, params_shape};
use burn::tensor::{Bytes, DType, Shape, Tensor, TensorPrimitive};
use burn_cubecl::ops::numeric::zeros_client;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeRuntime};
use checkpoint::Dtype;
use cubecl::Runtime;
use cubecl::config::memory::{MemoryConfig, PersistentMemory};
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use cubecl::device::Device;
use cubecl::device_handle::DeviceHandle;
use cubecl::server::{ComputeServer, CopyDescriptor, MemoryLayoutDescriptor};
use cubecl::stream_id::StreamId;
use cubecl::zspace::metadata::Metadata;
use meter::DeviceMemory;

use super::{Filling, recycled};
use crate::quantise::Quantised;
use crate::{Error, Tuning};

/// How much of a tensor is read back at once.
const PIECE_BYTES: u64 = 16 << 20;
/// After this, a write is taken to be lost.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Fixes CubeCL's settings: otherwise a `cubecl.toml` or `burn.toml` in the current folder or above it,
/// or an environment variable, could change what is measured.
pub(super) fn configure() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        CubeClRuntimeConfig::set(CubeClRuntimeConfig {
            memory: MemoryConfig {
                persistent_memory: PersistentMemory::Enabled,
                ..Default::default()
            },
            ..Default::default()
        });
    });
}

pub(super) fn max_tensor_bytes<R: Runtime>(device: &R::Device) -> u64 {
    R::client(device).properties().memory.max_page_size
}

pub(super) fn memory<R: Runtime>(device: &R::Device) -> Option<DeviceMemory> {
    let usage = R::client(device).memory_usage().ok()?;
    Some(DeviceMemory {
        in_use_bytes: usage.bytes_in_use,
        reserved_bytes: usage.bytes_reserved,
    })
}

pub(super) fn device_error(device: &impl std::fmt::Debug, reason: impl ToString) -> Error {
    Error::Device {
        device: format!("{device:?}"),
        reason: reason.to_string(),
    }
}

/// A sync, and a read-back of one small tensor: wgpu's sync alone may return before the last writes were
/// submitted (cubecl-wgpu 0.10).
pub(super) fn finish<B: super::Platform>(device: &B::Device) -> Result<(), Error> {
    B::sync(device).map_err(|error| device_error(device, format!("{error:?}")))?;
    Writes::all_done(device)?;
    recycled::release();
    let probe = Tensor::<B, 1>::from_data([1.0f32], device);
    let read = probe.try_into_data();
    read.map_err(|error| device_error(device, format!("{error:?}")))?;
    Ok(())
}

/// Reads the buffer itself, a range at a time.
pub(super) fn read_back<R, F, I, T>(
    tensor: Tensor<CubeBackend<R, F, I, T>, 1>,
    each: &mut dyn FnMut(&[u8]),
) -> Result<(), Error>
where
    R: CubeRuntime,
    F: burn_cubecl::FloatElement,
    I: burn_cubecl::IntElement,
    T: burn_cubecl::element::BoolElement,
{
    let tensor: CubeTensor<R> = tensor.into_primitive().tensor();
    // One dimension: contiguous, unless somebody made it a strided view.
    assert!(
        tensor.is_contiguous(),
        "only contiguous tensors are read back"
    );
    let bytes = (tensor.meta.num_elements() * tensor.elem_size()) as u64;
    let mut start = 0;
    while start < bytes {
        let end = bytes.min(start + PIECE_BYTES);
        let held = tensor.handle.size_in_used();
        let piece = tensor
            .handle
            .clone()
            .offset_start(start)
            .offset_end(held - end);
        let read = tensor.client.read_one(piece);
        each(&read.map_err(|error| device_error(&tensor.device, error))?);
        start = end;
    }
    Ok(())
}

/// The writes that are with the server, whose thread makes them. A process has one device.
struct Writes {
    on_their_way: usize,
    /// The first error of one.
    failed: Option<String>,
}

static WRITES: (Mutex<Writes>, Condvar) = (
    Mutex::new(Writes {
        on_their_way: 0,
        failed: None,
    }),
    Condvar::new(),
);

impl Writes {
    /// Waits until fewer than `limit` are on their way.
    fn wait(
        limit: usize,
        device: &impl std::fmt::Debug,
    ) -> Result<MutexGuard<'static, Writes>, Error> {
        let writes = WRITES.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A server that has panicked ends none: then this is an error, and no wait for ever.
        let (mut writes, timeout) = WRITES
            .1
            .wait_timeout_while(writes, WRITE_TIMEOUT, |writes| {
                writes.on_their_way >= limit && writes.failed.is_none()
            })
            .unwrap_or_else(PoisonError::into_inner);
        match writes.failed.take() {
            Some(error) => Err(device_error(device, error)),
            None if timeout.timed_out() => {
                Err(device_error(device, "a write was not made within a minute"))
            }
            None => Ok(writes),
        }
    }

    /// One more, once there is room for it.
    fn begin(device: &impl std::fmt::Debug) -> Result<(), Error> {
        Writes::wait(Tuning::PIECES - 1, device)?.on_their_way += 1;
        Ok(())
    }

    /// One less: called by the server's thread.
    fn end(result: Result<(), String>) {
        let mut writes = WRITES.0.lock().unwrap_or_else(PoisonError::into_inner);
        writes.on_their_way -= 1;
        if let Err(error) = result {
            writes.failed.get_or_insert(error);
        }
        WRITES.1.notify_all();
    }

    /// Waits for all of them.
    fn all_done(device: &impl std::fmt::Debug) -> Result<(), Error> {
        Writes::wait(1, device).map(drop)
    }
}

/// A device buffer, and the tensor that it will be.
pub struct CubeFilling<R: CubeRuntime>(CubeTensor<R>);

/// The tensor's memory comes from CubeCL's persistent pool, which allocates exactly what is asked for.
pub(super) fn begin<R: CubeRuntime>(
    device: &R::Device,
    elements: usize,
    dtype: Dtype,
) -> CubeFilling<R> {
    let client = R::client(device);
    let bytes = elements * dtype.bytes() as usize;
    let handle = client
        .memory_persistent_allocation((), |()| client.empty(bytes))
        .expect("a task that returns a handle cannot fail");
    let dtype = match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::Bf16 => DType::BF16,
        Dtype::I8 => panic!("quantised weights are no floats: see quantise"),
    };
    let shape = Shape::new([elements]);
    CubeFilling(CubeTensor::new_contiguous(
        client,
        device.clone(),
        shape,
        handle,
        dtype,
    ))
}

/// CUDA's queue of host buffers to be dropped is emptied by a flush or a launch alone (cubecl-cuda 0.10), and has two
/// halves: the second flush waits for what the first has marked, and frees it. A loop of uploads would otherwise keep the
/// whole model on the host.
pub(super) fn release_uploaded<R: Runtime>(device: &R::Device) -> Result<(), Error> {
    let client = R::client(device);
    for _ in 0..2 {
        let flushed = client.flush();
        flushed.map_err(|error| device_error(device, format!("{error:?}")))?;
    }
    Ok(())
}

/// In the persistent pool, and row by row without gaps: Burn's `from_data` begins each row where the device likes it best, on
/// CUDA at a multiple of 512 bytes, which takes a third more for rows of 768.
pub(super) fn quantised<R, F, I, T>(
    device: &R::Device,
    matrix: Quantised,
    shape: [usize; 2],
    scheme: QuantScheme,
) -> Tensor<CubeBackend<R, F, I, T>, 2>
where
    R: CubeRuntime,
    F: burn_cubecl::FloatElement,
    I: burn_cubecl::IntElement,
    T: burn_cubecl::element::BoolElement,
{
    let client = R::client(device);
    let Quantised { values, scales } = matrix;
    let shape = Shape::new(shape);
    let scales_shape = params_shape(&shape, scheme.level);
    let data = vec![
        (
            MemoryLayoutDescriptor::contiguous(shape.clone(), size_of::<i8>()),
            Bytes::from_elems(values),
        ),
        (
            MemoryLayoutDescriptor::contiguous(scales_shape.clone(), size_of::<f32>()),
            Bytes::from_elems(scales),
        ),
    ];
    let created = client.memory_persistent_allocation(data, |data| client.create_tensors(data));
    let mut created = created.expect("a task that returns handles cannot fail");
    let scales = created.pop().expect("one for each");
    let values = created.pop().expect("one for each");
    // One buffer for both: the scales are at these offsets in it.
    let scales = QParamTensor {
        offset_start: scales.memory.offset_start.unwrap_or(0) as usize,
        offset_end: scales.memory.offset_end.unwrap_or(0) as usize,
        metadata: Metadata::new(scales_shape, scales.strides),
        dtype: DType::F32,
    };
    let tensor = CubeTensor::new_quantized(
        client.clone(),
        values.memory,
        shape,
        device.clone(),
        values.strides,
        DType::QFloat(scheme),
        QParams { scales },
    );
    Tensor::from_primitive(TensorPrimitive::QFloat(tensor))
}

impl<R, F, I, T> Filling<CubeBackend<R, F, I, T>> for CubeFilling<R>
where
    R: CubeRuntime,
    F: burn_cubecl::FloatElement,
    I: burn_cubecl::IntElement,
    T: burn_cubecl::element::BoolElement,
{
    fn memory(&mut self) -> Option<&mut [u8]> {
        None
    }

    /// Not by Burn's `from_data`, which copies what it is given twice (`do_create` in cubecl-runtime 0.10), nor by
    /// `slice_assign`, which does so and needs a kernel.
    fn write(&mut self, offset_bytes: u64, piece: Bytes) -> Result<(), Error> {
        let CubeFilling(tensor) = self;
        let server = DeviceHandle::<R::Server>::new(tensor.device.to_id());
        Writes::begin(&tensor.device)?;
        let bytes = piece.len();
        let after = tensor.handle.size_in_used() - offset_bytes - bytes as u64;
        let place = tensor.handle.clone().offset_start(offset_bytes);
        let place = place.offset_end(after).binding();
        let descriptor = CopyDescriptor::new(place, [bytes].into(), [1].into(), 1);
        let stream = StreamId::current();
        // The flush makes the server write now, while the next piece is read, and not when it is asked for something;
        // and it drains CUDA's queue of buffers to be dropped, which a loop of uploads would fill with the whole
        // model (cubecl-cuda 0.10 empties it at a flush, and not at a sync).
        server.submit(move |server| server.write(vec![(descriptor, piece)], stream));
        // cubecl-wgpu 0.10 submits nothing where it has written and computed nothing: then writes pile up in its staging
        // memory, 64 of them, and are waited for. A kernel that does next to nothing makes the flush a submission.
        let (client, device) = (tensor.client.clone(), tensor.device.clone());
        // Of the shape that the worker warmed up with, so that it is compiled.
        drop(zeros_client(client, device, Shape::new([64]), DType::F32));
        server.submit(move |server| {
            Writes::end(server.flush(stream).map_err(|error| format!("{error:?}")));
        });
        // CubeCL collects tasks before its thread makes them.
        server.flush_queue();
        Ok(())
    }

    fn finish(self) -> Tensor<CubeBackend<R, F, I, T>, 1> {
        Tensor::from_primitive(TensorPrimitive::Float(self.0))
    }
}

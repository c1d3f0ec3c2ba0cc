//! Devices of CubeCL's: Vulkan, Metal and WebGPU by wgpu, and CUDA. (CubeCL 0.10, burn-cubecl 0.21.)

use std::any::Any;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use burn::tensor::quantization::{QParamTensor, QParams, QuantScheme, params_shape};
use burn::tensor::{Bytes, DType, Shape};
use burn_cubecl::CubeRuntime;
use burn_cubecl::ops::numeric::zeros_client;
use burn_cubecl::tensor::CubeTensor;
use cubecl::device::Device;
use cubecl::device_handle::DeviceHandle;
use cubecl::server::{ComputeServer, CopyDescriptor, MemoryLayoutDescriptor};
use cubecl::stream_id::StreamId;
use cubecl::zspace::metadata::Metadata;

use super::recycled::Buffers;
use super::{Fill, Finished, Pieces};
use crate::change::Quantised;
use crate::{Error, Observe};

/// In what runtimes differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traits {
    /// A flush submits nothing where nothing was computed: writes pile up in staging memory, 64 of them, and are waited for
    /// (cubecl-wgpu 0.10). A kernel that does next to nothing makes it a submission.
    needs_kernel: bool,
    /// Copies are made by the device itself from page-locked memory.
    is_cuda: bool,
    /// After this, a write is taken to be lost. A software device computes for a long time what was asked of it before.
    patience: Duration,
}

impl Traits {
    #[cfg_attr(not(feature = "wgpu-unfused"), expect(unused))]
    pub const WGPU: Traits = Traits {
        needs_kernel: true,
        is_cuda: false,
        patience: Duration::from_secs(60),
    };
    #[cfg_attr(not(feature = "cuda-unfused"), expect(unused))]
    pub const CUDA: Traits = Traits {
        needs_kernel: false,
        is_cuda: true,
        patience: Duration::from_secs(10),
    };
}

/// A device, with what is on its way there.
pub(super) struct Cube<R: CubeRuntime> {
    device: R::Device,
    staging: Stagings,
    traits: Traits,
    writes: Arc<Writes>,
}

/// Where staging buffers come from.
#[derive(Clone)]
struct Stagings {
    heap: Buffers,
    #[cfg(feature = "cuda-unfused")]
    locked: Option<super::pinned::Buffers>,
}

impl Stagings {
    fn buffer(&self, bytes: usize) -> Bytes {
        #[cfg(feature = "cuda-unfused")]
        if let Some(buffer) = self.locked.as_ref().and_then(|locked| locked.buffer(bytes)) {
            return buffer;
        }
        self.heap.buffer(bytes)
    }

    fn release(&self) {
        self.heap.release();
        #[cfg(feature = "cuda-unfused")]
        if let Some(locked) = &self.locked {
            locked.release();
        }
    }
}

impl<R: CubeRuntime> Cube<R> {
    pub fn new(device: &R::Device, traits: Traits, observer: &Arc<dyn Observe>) -> Cube<R> {
        let _ = (observer, traits.is_cuda);
        Cube {
            device: device.clone(),
            staging: Stagings {
                heap: Buffers::default(),
                #[cfg(feature = "cuda-unfused")]
                locked: traits.is_cuda.then(|| {
                    super::pinned::Buffers::new(device.to_id().index_id as usize, observer)
                }),
            },
            traits,
            writes: Arc::new(Writes::new(traits.patience)),
        }
    }
}

impl<R: CubeRuntime> Pieces for Cube<R> {
    /// The memory comes from CubeCL's persistent pool, which allocates exactly what is asked for.
    fn begin(&self, shape: &[usize], dtype: DType) -> Result<Box<dyn Fill>, Error> {
        let client = R::client(&self.device);
        let bytes = shape.iter().product::<usize>() * dtype.size();
        let handle = client.memory_persistent_allocation((), |()| client.empty(bytes));
        let handle = handle.map_err(|error| Error::device(&self.device, format!("{error:?}")))?;
        let shape = Shape::from(shape.to_vec());
        let tensor = CubeTensor::new_contiguous(client, self.device.clone(), shape, handle, dtype);
        Ok(Box::new(CubeFill::<R> {
            tensor,
            staging: self.staging.clone(),
            traits: self.traits,
            writes: Arc::clone(&self.writes),
        }))
    }

    fn max_tensor_bytes(&self) -> u64 {
        R::client(&self.device).properties().memory.max_page_size
    }

    fn taken(&self) -> Result<(), Error> {
        let taken = self.writes.all_done();
        taken.map_err(|reason| Error::device(&self.device, reason))
    }

    fn finish(&self) -> Result<(), Error> {
        let taken = self.taken();
        // The last pieces are with CubeCL still.
        self.release_uploaded()?;
        self.staging.release();
        taken
    }

    /// CUDA's queue of host buffers to be dropped is emptied by a flush or a launch alone (cubecl-cuda 0.10), and has two
    /// halves: the second flush waits for what the first has marked, and frees it. A loop of uploads would otherwise keep the
    /// whole model on the host.
    fn release_uploaded(&self) -> Result<(), Error> {
        if !self.traits.is_cuda {
            return Ok(());
        }
        let client = R::client(&self.device);
        for _ in 0..2 {
            let flushed = client.flush();
            flushed.map_err(|error| Error::device(&self.device, format!("{error:?}")))?;
        }
        Ok(())
    }

    /// In the persistent pool, and row by row without gaps: Burn's `from_data` begins each row where the device likes it best, on
    /// CUDA at a multiple of 512 bytes, which takes a third more for rows of 768.
    fn quantised(
        &self,
        matrix: Quantised,
        shape: &[usize],
        scheme: QuantScheme,
    ) -> Result<Box<dyn Any + Send>, Error> {
        let client = R::client(&self.device);
        let Quantised { values, scales } = matrix;
        let shape = Shape::from(shape.to_vec());
        let scales_shape = params_shape(&shape, scheme.level);
        let contiguous = MemoryLayoutDescriptor::contiguous;
        let data = vec![
            (
                contiguous(shape.clone(), size_of::<i8>()),
                Bytes::from_elems(values),
            ),
            (
                contiguous(scales_shape.clone(), size_of::<f32>()),
                Bytes::from_elems(scales),
            ),
        ];
        let created = client.memory_persistent_allocation(data, |data| client.create_tensors(data));
        let created = created.map_err(|error| Error::device(&self.device, format!("{error:?}")))?;
        let [values, scales] = <[_; 2]>::try_from(created).map_err(|_| {
            Error::device(
                &self.device,
                "it made another number of tensors than was asked for",
            )
        })?;
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
            self.device.clone(),
            values.strides,
            DType::QFloat(scheme),
            QParams { scales },
        );
        Ok(Box::new(tensor))
    }
}

/// The writes that are with the server, whose thread makes them.
struct Writes {
    state: Mutex<State>,
    changed: Condvar,
    patience: Duration,
}

/// More writes than these would wait in CubeCL's channel to its thread (cubecl-common 0.10), where nobody looks at the clock: a flush
/// fills one of its two buffers. What the thread has handed to the driver is no longer counted, and may be copied later.
const IN_CHANNEL: usize = 2;

#[derive(Default)]
struct State {
    on_their_way: usize,
    /// The first error of one.
    failed: Option<String>,
}

impl Writes {
    fn new(patience: Duration) -> Writes {
        Writes {
            state: Mutex::default(),
            changed: Condvar::new(),
            patience,
        }
    }

    /// Waits until fewer than `limit` are on their way.
    fn wait(&self, limit: usize) -> Result<MutexGuard<'_, State>, String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, timeout) = self
            .changed
            .wait_timeout_while(state, self.patience, |state| {
                state.on_their_way >= limit && state.failed.is_none()
            })
            .unwrap_or_else(PoisonError::into_inner);
        // It stays: whoever asks again is to hear it, too.
        match &state.failed {
            Some(error) => Err(error.clone()),
            None if timeout.timed_out() => {
                let seconds = self.patience.as_secs();
                Err(format!(
                    "a write was not made within {seconds} s: the device hangs"
                ))
            }
            None => Ok(state),
        }
    }

    /// One more, once there is room for it.
    fn begin(self: &Arc<Self>) -> Result<Pending, String> {
        self.wait(IN_CHANNEL)?.on_their_way += 1;
        Ok(Pending(Some(Arc::clone(self))))
    }

    /// Waits for all of them.
    fn all_done(&self) -> Result<(), String> {
        self.wait(1).map(drop)
    }

    fn end(&self, result: Result<(), String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.on_their_way -= 1;
        if let Err(error) = result {
            state.failed.get_or_insert(error);
        }
        self.changed.notify_all();
    }
}

/// A write on its way. A server that panics over it, or is gone, drops it: then the write has failed, and nobody waits.
struct Pending(Option<Arc<Writes>>);

impl Pending {
    fn end(mut self, result: Result<(), String>) {
        if let Some(writes) = self.0.take() {
            writes.end(result);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(writes) = self.0.take() {
            let reason = "it could not write what was sent to it: it is out of memory, or lost (CubeCL's thread says more on \
                          standard error)";
            writes.end(Err(reason.to_owned()));
        }
    }
}

/// A device buffer, and the tensor that it will be.
struct CubeFill<R: CubeRuntime> {
    tensor: CubeTensor<R>,
    staging: Stagings,
    traits: Traits,
    writes: Arc<Writes>,
}

impl<R: CubeRuntime> Fill for CubeFill<R> {
    fn memory(&mut self) -> Option<&mut [u8]> {
        None
    }

    fn staging(&self, bytes: usize) -> Bytes {
        self.staging.buffer(bytes)
    }

    /// Not by Burn's `from_data`, which copies what it is given twice (`do_create` in cubecl-runtime 0.10), nor by
    /// `slice_assign`, which does so and needs a kernel.
    fn write(&mut self, offset_bytes: u64, piece: Bytes) -> Result<(), Error> {
        let tensor = &self.tensor;
        let server = DeviceHandle::<R::Server>::new(tensor.device.to_id());
        let pending = self.writes.begin();
        let pending = pending.map_err(|reason| Error::device(&tensor.device, reason))?;
        let bytes = piece.len();
        let after = tensor.handle.size_in_used() - offset_bytes - bytes as u64;
        let place = tensor.handle.clone().offset_start(offset_bytes);
        let place = place.offset_end(after).binding();
        let descriptor = CopyDescriptor::new(place, [bytes].into(), [1].into(), 1);
        let stream = StreamId::current();
        let (to_flush, flushing) = std::sync::mpsc::sync_channel(1);
        server.submit(move |server| {
            server.write(vec![(descriptor, piece)], stream);
            // A panic above drops the pending write, which then has failed.
            let _ = to_flush.send(pending);
        });
        if self.traits.needs_kernel {
            let (client, device) = (tensor.client.clone(), tensor.device.clone());
            drop(zeros_client(client, device, Shape::new([64]), DType::F32));
        }
        // The flush makes the server write now, while the next piece is read, and not when it is asked for something;
        // and it drains CUDA's queue of buffers to be dropped, which a loop of uploads would fill with the whole
        // model (cubecl-cuda 0.10 empties it at a flush, and not at a sync).
        server.submit(move |server| {
            let flushed = server.flush(stream).map_err(|error| format!("{error:?}"));
            if let Ok(pending) = flushing.try_recv() {
                Pending::end(pending, flushed);
            }
        });
        // CubeCL collects tasks before its thread makes them.
        server.flush_queue();
        Ok(())
    }

    fn finish(self: Box<Self>) -> Finished {
        Finished::Device(Box::new(self.tensor))
    }
}

/// The tensor as one of Burn's fusion.
#[cfg(feature = "fusion")]
pub(super) fn fused<R: CubeRuntime>(
    tensor: CubeTensor<R>,
) -> burn_fusion::FusionTensor<burn_cubecl::fusion::FusionCubeRuntime<R>> {
    use burn_cubecl::CubeBackend;
    use burn_fusion::client::GlobalFusionClient;
    use burn_fusion::stream::OperationStreams;
    use burn_ir::{InitOperationIr, OperationIr};

    // Element types play no part in what is done here.
    type Whichever<R> = CubeBackend<R, f32, i32, u32>;
    let client =
        GlobalFusionClient::<burn_cubecl::fusion::FusionCubeRuntime<R>>::load(&tensor.device);
    let (shape, dtype) = (tensor.meta.shape().clone(), tensor.dtype);
    let handle = tensor.into();
    let described = InitOperationIr::create(shape, dtype, || client.register_tensor_handle(handle));
    let mut outputs = client.register(
        OperationStreams::default(),
        OperationIr::Init(described),
        burn_fusion::NoOp::<Whichever<R>>::new(),
    );
    outputs.pop().expect("one tensor comes out of one")
}

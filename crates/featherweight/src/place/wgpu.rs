//! Vulkan, Metal and WebGPU, by wgpu (cubecl-wgpu 0.10): CubeCL's thread writes the pieces.

use std::any::Any;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use burn::tensor::quantization::QuantScheme;
use burn::tensor::{Bytes, DType, Shape};
use burn_cubecl::ops::numeric::zeros_client;
use burn_cubecl::tensor::CubeTensor;
use burn_wgpu::{WgpuDevice, WgpuRuntime};
use cubecl::Runtime;
use cubecl::device::Device;
use cubecl::device_handle::DeviceHandle;
use cubecl::server::{ComputeServer, CopyDescriptor};
use cubecl::stream_id::StreamId;

use super::cubecl::Cube;
use super::recycled::Buffers;
use super::{Fill, Finished, Pieces, Staging};
use crate::change::Quantised;
use crate::{Error, Observe};

/// After this, a write is taken to be lost. A software device computes for a long time what was asked of it before.
const PATIENCE: Duration = Duration::from_secs(60);

/// A device, with what is on its way there.
pub(super) struct Wgpu {
    cube: Cube<WgpuRuntime>,
    staging: Buffers,
    writes: Arc<Writes>,
}

impl Wgpu {
    pub fn new(device: &WgpuDevice, _observer: &Arc<dyn Observe>) -> Wgpu {
        Wgpu {
            cube: Cube {
                device: device.clone(),
            },
            staging: Buffers::default(),
            writes: Arc::default(),
        }
    }
}

impl Pieces for Wgpu {
    fn begin(&self, shape: &[usize], dtype: DType) -> Result<Box<dyn Fill>, Error> {
        Ok(Box::new(WgpuFill {
            tensor: self.cube.empty(shape, dtype)?,
            staging: self.staging.clone(),
            writes: Arc::clone(&self.writes),
        }))
    }

    fn max_tensor_bytes(&self) -> u64 {
        self.cube.max_tensor_bytes()
    }

    fn taken(&self) -> Result<(), Error> {
        let taken = self.writes.all_done();
        taken.map_err(|reason| Error::device(&self.cube.device, reason))
    }

    fn finish(&self) -> Result<(), Error> {
        let taken = self.taken();
        self.staging.release();
        taken
    }

    /// It is copied as it is uploaded.
    fn release_uploaded(&self) -> Result<(), Error> {
        Ok(())
    }

    fn quantised(
        &self,
        matrix: Quantised,
        shape: &[usize],
        scheme: QuantScheme,
    ) -> Result<Box<dyn Any + Send>, Error> {
        let tensor = self.cube.quantised(matrix, shape, scheme)?;
        // CubeCL tells nobody that there is no memory for what is uploaded (cubecl-wgpu 0.10).
        let (binding, stream) = (tensor.handle.clone().binding(), StreamId::current());
        let device = &self.cube.device;
        let server = DeviceHandle::<<WgpuRuntime as Runtime>::Server>::new(device.to_id());
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        server.submit(move |server| {
            let found = server.get_resource(binding, stream).map(drop);
            drop(answer.send(found));
        });
        server.flush_queue();
        match answered.recv_timeout(PATIENCE) {
            Ok(found) => found.map_err(|error| self.cube.error(error))?,
            Err(error) => return Err(Error::device(device, error)),
        }
        Ok(Box::new(tensor))
    }
}

/// The writes that are with the server, whose thread makes them.
#[derive(Default)]
struct Writes {
    state: Mutex<State>,
    changed: Condvar,
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
    /// Waits until fewer than `limit` are on their way.
    fn wait(&self, limit: usize) -> Result<MutexGuard<'_, State>, String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, timeout) = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| {
                state.on_their_way >= limit && state.failed.is_none()
            })
            .unwrap_or_else(PoisonError::into_inner);
        // It stays: whoever asks again is to hear it, too.
        match &state.failed {
            Some(error) => Err(error.clone()),
            None if timeout.timed_out() => {
                let seconds = PATIENCE.as_secs();
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
struct WgpuFill {
    tensor: CubeTensor<WgpuRuntime>,
    staging: Buffers,
    writes: Arc<Writes>,
}

impl Fill for WgpuFill {
    fn memory(&mut self) -> Option<&mut [u8]> {
        None
    }

    fn staging(&self, bytes: usize, _all: Staging) -> Bytes {
        self.staging.buffer(bytes)
    }

    /// Not by Burn's `from_data`, which copies what it is given twice (`do_create` in cubecl-runtime 0.10), nor by
    /// `slice_assign`, which does so and needs a kernel.
    fn write(&mut self, offset_bytes: u64, piece: Bytes) -> Result<(), Error> {
        let tensor = &self.tensor;
        let server = DeviceHandle::<<WgpuRuntime as Runtime>::Server>::new(tensor.device.to_id());
        let bytes = piece.len();
        let after = super::rest_behind(tensor.handle.size_in_used(), offset_bytes, bytes);
        let pending = self.writes.begin();
        let pending = pending.map_err(|reason| Error::device(&tensor.device, reason))?;
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
        // A flush submits nothing where nothing was computed: writes pile up in staging memory, 64 of them, and are waited for.
        // A kernel that does next to nothing makes it a submission.
        let (client, device) = (tensor.client.clone(), tensor.device.clone());
        drop(zeros_client(client, device, Shape::new([64]), DType::F32));
        // The flush makes the server write now, while the next piece is read, and not when it is asked for something.
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

    fn finish(self: Box<Self>) -> Result<Finished, Error> {
        Ok(Finished::Device(Box::new(self.tensor)))
    }
}

//! CUDA (cubecl-cuda 0.10): CubeCL gives the memory, and the library copies into it by itself.
//!
//! CubeCL's own writes would go through its thread's channel, where nobody looks at a clock; it lets go of a piece when a wait for
//! its copy has ended, however that ended; and it keeps two batches of them.

use std::any::Any;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::quantization::QuantScheme;
use burn::tensor::{Bytes, DType};
use burn_cubecl::tensor::CubeTensor;
use burn_cuda::CudaDevice;
use cubecl::Runtime;
use cubecl::cuda::CudaRuntime;
use cubecl::device::Device;
use cubecl::device_handle::DeviceHandle;
use cubecl::server::ComputeServer;
use cubecl::stream_id::StreamId;

use super::copies::{Copies, PATIENCE_WITH_OTHERS, is_busy};
use super::cubecl::Cube;
use super::{Fill, Finished, Pieces, Staging};
use crate::change::Quantised;
use crate::{Error, Observe};

type Server = <CudaRuntime as Runtime>::Server;

/// A device, with what is on its way there.
pub(super) struct Cuda {
    cube: Cube<CudaRuntime>,
    to: Arc<To>,
}

/// What the fills of a device share.
struct To {
    device: CudaDevice,
    copies: Copies,
    begun: Mutex<Begun>,
}

/// How many tensors were begun, and for how many of them the device has done what was asked of their memory before.
#[derive(Default)]
struct Begun {
    all: u64,
    free: u64,
}

impl Cuda {
    pub fn new(device: &CudaDevice, observer: &Arc<dyn Observe>) -> Cuda {
        Cuda {
            cube: Cube {
                device: device.clone(),
            },
            to: Arc::new(To {
                device: device.clone(),
                copies: Copies::new(device.to_id().index_id as i32, observer),
                begun: Mutex::default(),
            }),
        }
    }
}

impl Pieces for Cuda {
    fn begin(&self, shape: &[usize], dtype: DType) -> Result<Box<dyn Fill>, Error> {
        let tensor = self.cube.empty(shape, dtype)?;
        let address = self.to.address(&tensor)?;
        let mut begun = self.to.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.all += 1;
        Ok(Box::new(CudaFill {
            tensor,
            address,
            begun: begun.all,
            last: 0,
            to: Arc::clone(&self.to),
        }))
    }

    fn max_tensor_bytes(&self) -> u64 {
        self.cube.max_tensor_bytes()
    }

    fn taken(&self) -> Result<(), Error> {
        self.to.landed(self.to.copies.wait_for_all())
    }

    fn finish(&self) -> Result<(), Error> {
        let taken = self.taken();
        self.release_uploaded()?;
        self.to.copies.release();
        taken
    }

    /// CUDA's queue of host buffers to be dropped is emptied by a flush or a launch alone, and has two halves: the second flush waits
    /// for what the first has marked, and frees it. A loop of uploads would otherwise keep the whole model on the host.
    fn release_uploaded(&self) -> Result<(), Error> {
        let client = CudaRuntime::client(&self.cube.device);
        for _ in 0..2 {
            client.flush().map_err(|error| self.cube.error(error))?;
        }
        Ok(())
    }

    fn quantised(
        &self,
        matrix: Quantised,
        shape: &[usize],
        scheme: QuantScheme,
    ) -> Result<Box<dyn Any + Send>, Error> {
        let tensor = self.cube.quantised(matrix, shape, scheme)?;
        // CubeCL tells nobody that there is no memory for what is uploaded (cubecl-cuda 0.10).
        self.to.address(&tensor)?;
        Ok(Box::new(tensor))
    }
}

impl To {
    /// Where a tensor's memory lies on the device. That there is none is an error.
    fn address(&self, tensor: &CubeTensor<CudaRuntime>) -> Result<u64, Error> {
        let (binding, stream) = (tensor.handle.clone().binding(), StreamId::current());
        let found = self.ask(move |server| {
            let found = server.get_resource(binding, stream);
            found.map(|found| found.resource().ptr)
        })?;
        found.map_err(|error| Error::device(&self.device, format!("{error:?}")))
    }

    /// Asks CubeCL's thread, which owns the device, and waits no longer than it may take.
    fn ask<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Server) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let server = DeviceHandle::<Server>::new(self.device.to_id());
        let (answer, answered) = sync_channel(1);
        server.submit(move |server| drop(answer.send(task(server))));
        server.flush_queue();
        let lost = "CubeCL's thread could not do what it was asked for: the device is out of memory, or lost (it says more on \
                    standard error)";
        let answered = answered.recv_timeout(PATIENCE_WITH_OTHERS);
        self.landed(answered.map_err(|error| match error {
            RecvTimeoutError::Timeout => is_busy(),
            RecvTimeoutError::Disconnected => lost.to_owned(),
        }))
    }

    /// Waits until the device has done what it was asked for before with the memory of the tensors begun so far: copies do not wait
    /// for it, for they are in a stream of their own. Another thread's stream may have computed in that memory last, and CubeCL waits
    /// for this thread's alone: so the whole device is waited for.
    fn free(&self, number: u64) -> Result<(), Error> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if number > begun.free {
            self.landed(self.copies.wait_for_device())?;
            begun.free = begun.all;
        }
        Ok(())
    }

    fn landed<T>(&self, result: Result<T, String>) -> Result<T, Error> {
        result.map_err(|reason| Error::device(&self.device, reason))
    }
}

/// A device buffer, and the tensor that it will be.
struct CudaFill {
    tensor: CubeTensor<CudaRuntime>,
    /// Where it lies on the device.
    address: u64,
    /// As which of its device's.
    begun: u64,
    /// The number of its last copy.
    last: u64,
    to: Arc<To>,
}

impl Fill for CudaFill {
    fn memory(&mut self) -> Option<&mut [u8]> {
        None
    }

    fn staging(&self, bytes: usize, all: Staging) -> Bytes {
        self.to.copies.buffer(bytes, all.bytes)
    }

    fn write(&mut self, offset_bytes: u64, piece: Bytes) -> Result<(), Error> {
        let memory = &self.tensor.handle;
        super::rest_behind(memory.size_in_used(), offset_bytes, piece.len());
        self.to.free(self.begun)?;
        // SAFETY: so many bytes lie there as the handle says, which is kept until they are copied.
        let sent = unsafe {
            let to = self.address + offset_bytes;
            self.to.copies.send(to, piece, memory)
        };
        self.last = self.to.landed(sent)?;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Finished, Error> {
        // What computes with it does not wait for copies in another stream.
        self.to.landed(self.to.copies.wait_for(self.last))?;
        Ok(Finished::Device(Box::new(self.tensor)))
    }
}

//! Burn backends, with what Burn 0.21 does not forward: limits, memory in use, read-back in pieces.

#[cfg(feature = "cubecl")]
mod cubecl;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod flex;
mod forward;
#[cfg(feature = "cuda")]
pub(crate) mod nvml;
#[cfg(feature = "cuda")]
mod probe;
#[cfg(feature = "cuda")]
pub(crate) mod toolkit;
#[cfg(feature = "train")]
mod training;
#[cfg(not(feature = "train"))]
#[path = "training_left_out.rs"]
mod training;
#[cfg(feature = "vulkan")]
pub(crate) mod vulkan;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use checkpoint::Dtype;
use gpt2::Gpt2;
use meter::{DeviceMemory, ReadBytes};

use crate::{Error, FineTuning, MemoryModel, Run, Tell};

/// Looks after a model while forward goes through it: called before each layer.
pub type BringLayer<'a, B> = dyn FnMut(&mut Gpt2<B>, usize) -> Result<(), Error> + 'a;

/// The backend of host memory: Burn's pure-Rust CPU backend.
pub type Host = burn_flex::Flex;

/// A backend that experiments run on. Implemented for flex, and by features for Vulkan and CUDA.
pub trait Platform: Backend {
    /// Whose memory its tensors lie in.
    const MEMORY: MemoryModel;

    /// Whether matrix products of f32 may round their factors to TF32, as CubeCL has them on tensor cores (`adjust_dtypes` in
    /// cubek-matmul 0.2).
    const MULTIPLIES_IN_TF32: bool = false;

    /// Opens the device with this number, once in a process.
    ///
    /// # Errors
    ///
    /// If there is no such device, or its driver is missing.
    fn open(index: usize) -> Result<Self::Device, Error>;

    /// The largest tensor that the device can bind, in bytes; `None` where only memory limits it.
    fn max_tensor_bytes(device: &Self::Device) -> Option<u64>;

    /// Memory held on the device by this thread's work; `None` on unified memory. Waits until the device's
    /// queue has taken what was submitted before.
    fn memory(device: &Self::Device) -> Option<DeviceMemory>;

    /// Starts the high-water marks of the driver's own memory pool over, and returns what it holds now; `None`
    /// where the driver has no pool.
    fn reset_pool_peak(device: &Self::Device) -> Option<DeviceMemory> {
        let _ = device;
        None
    }

    /// The high-water marks of the driver's own memory pool since they were reset.
    fn pool_peak(device: &Self::Device) -> Option<DeviceMemory> {
        let _ = device;
        None
    }

    /// Waits until everything submitted has happened.
    ///
    /// # Errors
    ///
    /// If the device reports one.
    fn finish(device: &Self::Device) -> Result<(), Error>;

    /// Creates buffers of these sizes and writes them in pieces of `piece_bytes`, with nothing between this
    /// program and the driver: a bound for what an upload can reach. `None` where nobody has written that.
    ///
    /// # Errors
    ///
    /// If the device refuses.
    fn bare_upload(
        device: &Self::Device,
        buffers_bytes: &[u64],
        piece_bytes: usize,
    ) -> Option<Result<(), Error>> {
        let _ = (device, buffers_bytes, piece_bytes);
        None
    }

    /// Hands out a tensor's bytes in order, in pieces that are small against the tensor.
    ///
    /// # Errors
    ///
    /// If the device cannot be read.
    fn read_back(tensor: Tensor<Self, 1>, each: &mut dyn FnMut(&[u8])) -> Result<(), Error>;

    /// The logits of one sequence of token ids, row after row, in f32. `bring` is called before each layer.
    ///
    /// # Errors
    ///
    /// If the device cannot be read, or what `bring` returns.
    fn logits(
        model: &mut Gpt2<Self>,
        tokens: &[i32],
        device: &Self::Device,
        bring: &mut BringLayer<'_, Self>,
    ) -> Result<Vec<f32>, Error>;

    /// Trains all parameters of a model with AdamW on one sequence of at least two token ids, by the mean cross-entropy of
    /// each token after those before it. `tell` hears it before each step, and after the last. Then the model and the
    /// optimizer's state are saved, where that is asked for.
    ///
    /// # Errors
    ///
    /// If the device reports one, the loss is not finite, a state cannot be read or written, or `tell` says to stop.
    fn train(
        model: Gpt2<Self>,
        run: &Run<Self>,
        tokens: &[i32],
        tuning: &FineTuning,
        tell: &mut Tell<'_>,
    ) -> Result<(), Error>;

    /// Looks at who uses the device: called once before [`Platform::open`], and kept until the run has ended.
    fn watch_driver(index: usize) -> Option<Box<dyn DriverView>> {
        let _ = index;
        None
    }

    /// Whether the device's own memory lies in the host's RAM, apart from what the host itself holds: software's buffers, and
    /// those of a GPU in the processor.
    fn is_in_host_memory(device: &Self::Device) -> bool {
        let _ = device;
        false
    }

    /// Why models of this dtype cannot be computed there, where it is known before a kernel is compiled.
    fn lacks(device: &Self::Device, dtype: Dtype) -> Option<String> {
        let _ = (device, dtype);
        None
    }

    /// Whether it is a stand-in for a device, which copies bytes and computes nothing: what its kernels would have written is not
    /// looked at.
    fn is_simulated(device: &Self::Device) -> bool {
        let _ = device;
        false
    }

    /// Whether a first forward takes so long (compiling its kernels in software) that it is worth one
    /// run in many.
    fn compiles_in_software(device: &Self::Device) -> bool {
        let _ = device;
        false
    }
}

/// What a device's driver says of the processes on it.
pub trait DriverView {
    /// Reads what the driver holds for this process, above what it holds now; `None` where it does not tell.
    /// Called with the device open.
    fn read_own(&mut self) -> Option<ReadBytes>;

    /// How many other processes have used it meanwhile; `None` where the driver does not tell.
    fn others(&self) -> Option<u64>;
}

//! What a running experiment sees: where to load from, where to, and the marks it leaves.

use std::ops::Range;
use std::path::PathBuf;

use burn::tensor::{Tensor, TensorData};
use checkpoint::{Checkpoint, Dtype, Mapped, TensorRange};
use gpt2::{Config, Gpt2, TensorMut};
use half::{bf16, f16};
use meter::{Phase, Recorder};

use crate::{Error, Host, Layouts, Platform, Tuning};

/// The context of one run on backend `B`.
pub struct Run<B: Platform> {
    /// The model's dimensions.
    pub config: Config,
    /// The dtype of the checkpoint.
    pub stored: Dtype,
    /// The dtype of the loaded parameters and of the device's default: the checkpoint's, unless the experiment
    /// casts.
    pub dtype: Dtype,
    /// Which variant of the experiment this is: [`Experiment::NAME`](crate::Experiment::NAME), or the name of
    /// another.
    pub variant: &'static str,
    /// What it is tuned with.
    pub tuning: Tuning,
    /// The device to load to.
    pub device: B::Device,
    pub(crate) checkpoint: PathBuf,
    pub(crate) layouts: Layouts,
    pub(crate) max_tensor_bytes: Option<u64>,
    pub(crate) recorder: Recorder,
}

impl<B: Platform> Run<B> {
    /// Says what the run does from here on, and reads the marks of what it did until now.
    pub fn enter(&self, phase: Phase) {
        self.recorder.enter(phase);
    }

    /// A model on the device that holds no memory yet.
    pub fn lazy_model(&self) -> Gpt2<B> {
        Gpt2::lazy(&self.config, self.max_shard_elements(), &self.device)
    }

    /// A model in host memory that holds no memory yet, sharded as the device's is.
    pub fn lazy_host_model(&self) -> Gpt2<Host> {
        Gpt2::lazy(&self.config, self.max_shard_elements(), &Default::default())
    }

    /// Initialises every lazy parameter of `model` with random weights, on the model's device.
    pub fn materialise<H: Platform>(&self, model: &mut Gpt2<H>) {
        model.materialise(&self.config, || self.recorder.mark());
    }

    /// That every tensor of `model` is held whole: Burn's own stores cannot load a part of one.
    ///
    /// # Errors
    ///
    /// If the device's limit asked for shards.
    pub fn check_unsharded(&self, model: &mut Gpt2<B>) -> Result<(), Error> {
        let mut tensors = model.tensors_mut(&self.config).into_iter();
        match tensors.find(|tensor| tensor.shards.len() > 1) {
            None => Ok(()),
            Some(tensor) => Err(Error::Unsupported {
                device: format!("{:?}", self.device),
                reason: format!(
                    "cannot bind `{}` whole, and Burn's stores load no parts of a tensor",
                    tensor.spec.name
                ),
            }),
        }
    }

    /// The path of the checkpoint, for what opens it otherwise than [`Run::open`].
    pub fn checkpoint_path(&self) -> &std::path::Path {
        &self.checkpoint
    }

    /// Opens the checkpoint: an index of byte ranges under the model's own names, no weights.
    ///
    /// # Errors
    ///
    /// If the checkpoint is missing or invalid.
    pub fn open(&self) -> Result<Checkpoint, Error> {
        Ok(self.layouts.open(&self.checkpoint)?.checkpoint)
    }

    /// What the checkpoint calls a tensor of the model; the model's own name where it does not tell.
    pub(crate) fn name_in_file(&self, tensor: &str) -> String {
        let named = self.layouts.open(&self.checkpoint).ok();
        let name = named.and_then(|mut named| named.sources.remove(tensor));
        name.unwrap_or_else(|| tensor.to_owned())
    }

    /// Reads rows of a tensor into host memory: flat data in the checkpoint's dtype, in a buffer that flex
    /// adopts as it is. (A buffer of bytes would be copied for its alignment: cubecl-common 0.10,
    /// `Bytes::from_bytes_vec`.)
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read(&self, tensor: &TensorRange, rows: Range<usize>) -> Result<TensorData, Error> {
        read_rows(tensor, rows)
    }

    /// Copies rows of a mapped tensor into host memory: flat data as [`Run::read`] returns it.
    pub fn copy(&self, mapped: &Mapped, tensor: &TensorRange, rows: Range<usize>) -> TensorData {
        let range = tensor.rows(rows.clone());
        let elements = ((range.end - range.start) / tensor.dtype.bytes()) as usize;
        macro_rules! copy_as {
            ($element:ty) => {{
                let mut values = vec![<$element>::default(); elements];
                mapped.copy_rows(tensor, rows, bytemuck::cast_slice_mut(&mut values));
                TensorData::new(values, [elements])
            }};
        }
        match tensor.dtype {
            Dtype::F32 => copy_as!(f32),
            Dtype::F16 => copy_as!(f16),
            Dtype::Bf16 => copy_as!(bf16),
            Dtype::I8 => copy_as!(i8),
        }
    }

    /// Reads a whole tensor of the checkpoint into host memory, in the pieces that `destination` holds it in.
    ///
    /// # Errors
    ///
    /// If the checkpoint has no such tensor, or cannot be read.
    pub fn read_tensor<H: Platform>(
        &self,
        checkpoint: &Checkpoint,
        destination: &TensorMut<'_, H>,
    ) -> Result<Vec<TensorData>, Error> {
        let tensor = checkpoint.tensor(&destination.spec.name, &destination.spec.shape)?;
        let shards = destination.shards.iter();
        shards
            .map(|shard| self.read(tensor, shard.rows.clone()))
            .collect()
    }

    /// Creates a tensor on the device from flat data, as Burn does it for a parameter
    /// ([`burn::module::Param::from_data`]): in memory of exactly its size.
    ///
    /// # Errors
    ///
    /// If the device cannot bind so large a tensor.
    pub fn upload(&self, data: TensorData) -> Result<Tensor<B, 1>, Error> {
        self.check_tensor_bytes(data.bytes.len() as u64)?;
        let device = &self.device;
        let tensor =
            B::memory_persistent_allocations(device, data, |data| Tensor::from_data(data, device));
        B::release_uploaded(device)?;
        self.recorder.mark();
        Ok(tensor)
    }

    /// [`Run::upload`] for the pieces of a tensor, each freed on the host once it is on its way.
    ///
    /// # Errors
    ///
    /// As [`Run::upload`].
    pub fn upload_all(&self, pieces: Vec<TensorData>) -> Result<Vec<Tensor<B, 1>>, Error> {
        pieces.into_iter().map(|piece| self.upload(piece)).collect()
    }

    /// Reads a whole tensor of the checkpoint to the device, one shard at a time: no more than a shard of
    /// it is on the host at once.
    ///
    /// # Errors
    ///
    /// As [`Run::read_tensor`] and [`Run::upload`].
    pub fn load_tensor(
        &self,
        checkpoint: &Checkpoint,
        destination: &TensorMut<'_, B>,
    ) -> Result<Vec<Tensor<B, 1>>, Error> {
        let tensor = checkpoint.tensor(&destination.spec.name, &destination.spec.shape)?;
        let shards = destination.shards.iter();
        let load = |rows: Range<usize>| {
            self.enter(Phase::Read);
            let data = self.read(tensor, rows)?;
            self.enter(Phase::Upload);
            self.upload(data)
        };
        shards.map(|shard| load(shard.rows.clone())).collect()
    }

    /// Tensors on the device of the shapes of `destination`'s shards, their contents undefined.
    pub fn allocate_empty(&self, destination: &TensorMut<'_, B>) -> Vec<Tensor<B, 1>> {
        let device = &self.device;
        let allocate = |elements: usize| {
            let tensor = B::memory_persistent_allocations(device, elements, |elements| {
                Tensor::empty([elements], device)
            });
            self.recorder.mark();
            tensor
        };
        let shards = destination.shards.iter();
        shards
            .map(|shard| allocate(shard.shape().iter().product()))
            .collect()
    }

    pub(crate) fn check_tensor_bytes(&self, bytes: u64) -> Result<(), Error> {
        match self.max_tensor_bytes.filter(|&limit| bytes > limit) {
            Some(limit) => Err(Error::TensorTooLarge { bytes, limit }),
            None => Ok(()),
        }
    }

    fn max_shard_elements(&self) -> u64 {
        self.max_tensor_bytes
            .map_or(u64::MAX, |bytes| bytes / self.dtype.bytes())
    }
}

fn read_rows(tensor: &TensorRange, rows: Range<usize>) -> Result<TensorData, Error> {
    let range = tensor.rows(rows.clone());
    let elements = ((range.end - range.start) / tensor.dtype.bytes()) as usize;
    macro_rules! read_as {
        ($element:ty) => {{
            let mut values = vec![<$element>::default(); elements];
            tensor.read_rows(rows, bytemuck::cast_slice_mut(&mut values))?;
            Ok(TensorData::new(values, [elements]))
        }};
    }
    match tensor.dtype {
        Dtype::F32 => read_as!(f32),
        Dtype::F16 => read_as!(f16),
        Dtype::Bf16 => read_as!(bf16),
        Dtype::I8 => read_as!(i8),
    }
}

/// A checkpoint as a model in host memory, as it is stored: for what is made of a model and not of a file.
///
/// # Errors
///
/// If the checkpoint cannot be read, or is no GPT-2 of these dimensions.
pub fn read_model(
    checkpoint: &std::path::Path,
    config: &Config,
    layouts: &Layouts,
) -> Result<Gpt2<Host>, Error> {
    let checkpoint = layouts.open(checkpoint)?.checkpoint;
    let device = Default::default();
    let mut model = Gpt2::<Host>::lazy(config, u64::MAX, &device);
    for parameter in model.tensors_mut(config) {
        let spec = &parameter.spec;
        let tensor = checkpoint.tensor(&spec.name, &spec.shape)?;
        let data = read_rows(tensor, 0..spec.shape[0])?;
        let dtype = data.dtype;
        parameter.assign(vec![Tensor::from_data(data, (&device, dtype))]);
    }
    Ok(model)
}

//! What a running experiment sees: where to load from, where to, and the marks it leaves.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use burn::tensor::{Tensor, TensorData};
use checkpoint::{Checkpoint, Dtype, Mapped, TensorRange};
use featherweight::carry::{Carrier, Source, carry};
use featherweight::place::{Place, Staging};
use featherweight::{IdentityAdapter, Load};
use gpt2::layout::Layouts;
use gpt2::{Config, Gpt2, TensorMut, TensorSpec};
use meter::Phase;

use crate::observed::Observed;
use crate::{Error, Host, Platform, Tuning};

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
    /// For layers that are loaded one by one.
    pub(crate) opened: OnceLock<featherweight::Checkpoint>,
    pub(crate) max_tensor_bytes: Option<u64>,
    /// How tensors are filled there.
    pub place: Place<B>,
    pub(crate) observed: Arc<Observed>,
}

impl<B: Platform> Run<B> {
    /// Says what the run does from here on, and reads the marks of what it did until now.
    pub fn enter(&self, phase: Phase) {
        self.observed.enter(phase);
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
        model.materialise(&self.config, || self.observed.mark());
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

    /// Loads the checkpoint into `model`, by the library: say how, then `.into(model)`. The checkpoint's tensors, or their rows,
    /// have the paths of the model's parameters.
    ///
    /// # Errors
    ///
    /// If the checkpoint is missing or invalid, or lacks a tensor of the model.
    pub fn load(&self, model: &mut Gpt2<B>) -> Result<Load, Error> {
        self.load_only(model, |_| true)
    }

    /// As [`Run::load`], of these tensors alone; the model's others stay as they are.
    ///
    /// # Errors
    ///
    /// As [`Run::load`].
    pub fn load_only(
        &self,
        model: &mut Gpt2<B>,
        is_wanted: impl Fn(&TensorSpec) -> bool,
    ) -> Result<Load, Error> {
        let checkpoint = self.open()?;
        let mut tensors = Vec::new();
        let parameters = model.tensors_mut(&self.config).into_iter();
        for parameter in parameters.filter(|parameter| is_wanted(&parameter.spec)) {
            let tensor = checkpoint.tensor(&parameter.spec.name, &parameter.spec.shape)?;
            for (number, shard) in parameter.shards.iter().enumerate() {
                let mut rows = tensor.clone().narrowed(shard.rows.clone());
                rows.name = parameter.spec.module_path(number);
                tensors.push(rows);
            }
        }
        let checkpoint = checkpoint.with_tensors(tensors)?.with_others(Vec::new());
        Ok(self.loads(&checkpoint.into()))
    }

    /// As [`Run::load`], of one layer: apply it to [`Gpt2::block_mut`]. The checkpoint is opened for the first, and its index kept.
    ///
    /// # Errors
    ///
    /// As [`Run::load`].
    pub fn load_layer(&self, model: &mut Gpt2<B>, layer: usize) -> Result<Load, Error> {
        let checkpoint = match self.opened.get() {
            Some(checkpoint) => checkpoint,
            None => {
                let opened = self.open()?.into();
                self.opened.get_or_init(|| opened)
            }
        };
        let mut tensors = Vec::new();
        for parameter in model.layer_mut(&self.config, layer) {
            let spec = &parameter.spec;
            let mut tensor = checkpoint.index().tensor(&spec.name, &spec.shape)?.clone();
            tensor.name = spec.layer_path().unwrap_or(tensor.name);
            tensors.push(tensor);
        }
        Ok(self.loads(&checkpoint.only(tensors)?))
    }

    fn loads(&self, checkpoint: &featherweight::Checkpoint) -> Load {
        // As it lies there: GPT-2's layers here are as PyTorch has them.
        let load = checkpoint.load().with_from_adapter(IdentityAdapter);
        load.allow_partial(true)
            .staging_bytes(self.tuning.staging_bytes as usize)
            .observed(self.observed.clone())
    }

    /// What the checkpoint calls a tensor of the model; the model's own name where it does not tell.
    pub(crate) fn name_in_file(&self, tensor: &str) -> String {
        let named = self.layouts.open(&self.checkpoint).ok();
        let name = named.and_then(|mut named| named.sources.remove(tensor));
        name.unwrap_or_else(|| tensor.to_owned())
    }

    /// Reads rows of a tensor into host memory: flat data in the checkpoint's dtype, in a buffer that flex adopts as it is.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read(&self, tensor: &TensorRange, rows: Range<usize>) -> Result<TensorData, Error> {
        Ok(featherweight::carry::read(&tensor.clone().narrowed(rows))?)
    }

    /// Copies rows of a mapped tensor into host memory: flat data as [`Run::read`] returns it.
    ///
    /// # Errors
    ///
    /// If the map is of another checkpoint.
    pub fn copy(
        &self,
        mapped: &Mapped,
        tensor: &TensorRange,
        rows: Range<usize>,
    ) -> Result<TensorData, Error> {
        let rows = tensor.clone().narrowed(rows);
        Ok(featherweight::carry::copy(mapped, &rows)?)
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
        Ok(self.place.upload(data)?)
    }

    /// Streams rows of a tensor into a new one on the device, by the library's steps: flat, as it is stored.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or the device refuses.
    pub fn stream(&self, tensor: &TensorRange, rows: Range<usize>) -> Result<Tensor<B, 1>, Error> {
        let source = Source::as_stored(tensor.clone().narrowed(rows));
        let elements = source.tensor.shape.iter().product();
        let mut filling = self.place.begin(&[elements], source.cast.dtype())?;
        let staging = Staging {
            bytes: self.tuning.staging_bytes as usize,
        };
        let fills = &mut [filling.fill()];
        carry(&[source], fills, Carrier::Stream, staging, &*self.observed)?;
        Ok(filling.into_float()?)
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
            self.observed.mark();
            tensor
        };
        let shards = destination.shards.iter();
        shards
            .map(|shard| allocate(shard.shape().iter().product()))
            .collect()
    }

    fn max_shard_elements(&self) -> u64 {
        self.max_tensor_bytes
            .map_or(u64::MAX, |bytes| bytes / self.dtype.bytes())
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
        let data = featherweight::carry::read(tensor)?;
        let dtype = data.dtype;
        parameter.assign(vec![Tensor::from_data(data, (&device, dtype))]);
    }
    Ok(model)
}

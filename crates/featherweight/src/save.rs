//! A module into a checkpoint: from the device to the disk a piece at a time, never whole on the host, atomically.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{BasicOps, Bool, BoolStore, DType, Int, Tensor, TensorKind};
use burn_store::{BurnToPyTorchAdapter, IdentityAdapter, PathFilter};
use checkpoint::{Digest, Dtype, Format, TensorMeta};

use crate::Error;
use crate::plan::{Convention, Slot, collect, is_linear_weight, norm_name, wants};
use crate::read_back::read_back;

/// Saves a module: say how, then [`Save::to`] where.
pub fn save<B: Backend, M: Module<B>>(module: &M) -> Save {
    let (slots, _) = collect::<B, M>(module);
    let mut collector = Collector {
        slots: slots.into_iter(),
        tensors: Vec::new(),
        failed: None,
    };
    module.visit(&mut collector);
    Save {
        tensors: collector.tensors,
        failed: collector.failed,
        convention: None,
        format: None,
        filter: None,
        metadata: BTreeMap::new(),
        is_overwriting: false,
    }
}

/// How a module is saved: under the names and in the layout of Burn, in the format that the file's name says, where nothing else
/// is said. It shares the module's tensors, and copies none.
#[must_use = "nothing is saved before `.to(path)`"]
pub struct Save {
    tensors: Vec<ToSave>,
    failed: Option<Error>,
    convention: Option<Convention>,
    format: Option<Format>,
    filter: Option<PathFilter>,
    metadata: BTreeMap<String, String>,
    is_overwriting: bool,
}

/// Hands out a tensor's bytes, turned where that is asked for.
type HandOut =
    dyn Fn(bool, &mut dyn FnMut(&[u8]) -> Result<(), checkpoint::Error>) -> Result<(), Failed>;

struct ToSave {
    slot: Slot,
    dtype: Dtype,
    shape: Vec<usize>,
    hand_out: Box<HandOut>,
}

/// What was saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// The file, or the folder of shards.
    pub file: PathBuf,
    /// Each tensor's name with the digest of its bytes (BLAKE3).
    pub digests: Vec<(String, Digest)>,
    /// Bytes of all tensors.
    pub bytes: u64,
}

/// Whom a convention is written for.
pub trait ToAdapter {
    /// The convention.
    const CONVENTION: Convention;
}

impl ToAdapter for BurnToPyTorchAdapter {
    const CONVENTION: Convention = Convention::PyTorch;
}

impl ToAdapter for IdentityAdapter {
    const CONVENTION: Convention = Convention::Burn;
}

impl Save {
    /// A tensor after the other, in pieces: the one way there is, and the default.
    pub fn streamed(self) -> Save {
        self
    }

    /// In this format, whatever the file's name says.
    pub fn in_format(mut self, format: Format) -> Save {
        self.format = Some(format);
        self
    }

    /// For PyTorch (`BurnToPyTorchAdapter`: linear weights are transposed, norms renamed), or as Burn has it
    /// (`IdentityAdapter`). `.pth` files are always PyTorch's.
    pub fn with_to_adapter<A: ToAdapter>(mut self, _: A) -> Save {
        self.convention = Some(A::CONVENTION);
        self
    }

    /// Only parameters whose paths match.
    pub fn filter(mut self, filter: PathFilter) -> Save {
        self.filter = Some(filter);
        self
    }

    /// Words about the checkpoint, where the format has room for them: in safetensors files.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Save {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Whether a file that is there may be replaced.
    pub fn overwrite(mut self, is_overwriting: bool) -> Save {
        self.is_overwriting = is_overwriting;
        self
    }

    /// Writes the checkpoint: under a temporary name beside it, renamed when it is complete and synced. The host holds a piece of
    /// a tensor at a time.
    ///
    /// # Errors
    ///
    /// If there is a file already, its name says no format, the format cannot hold a tensor, the device cannot be read, or the
    /// disk refuses.
    pub fn to(self, path: impl AsRef<Path>) -> Result<Saved, Error> {
        let path = path.as_ref();
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let format = match self.format {
            Some(format) => format,
            None => format_of(path)?,
        };
        if !self.is_overwriting && path.exists() {
            return Err(Error::Unsupported(format!(
                "{}: is there already: choose another name, or say .overwrite(true)",
                path.display()
            )));
        }
        let convention = match format {
            Format::Pth | Format::ShardedPth => Convention::PyTorch,
            _ => self.convention.unwrap_or(Convention::Burn),
        };
        let mut metadata = match convention {
            // As burn-store has it.
            Convention::Burn => BTreeMap::from([
                ("format".to_owned(), "safetensors".to_owned()),
                ("producer".to_owned(), "burn".to_owned()),
            ]),
            Convention::PyTorch => BTreeMap::from([("format".to_owned(), "pt".to_owned())]),
        };
        for (key, value) in self.metadata {
            if matches!(&*key, "format" | "producer") {
                return Err(Error::Unsupported(format!(
                    "metadata `{key}` says whose layout the file has, and is not the caller's: choose another key"
                )));
            }
            metadata.insert(key, value);
        }
        let filter = self.filter.as_ref();
        let mut tensors: BTreeMap<String, (&ToSave, bool)> = BTreeMap::new();
        let mut metas = Vec::new();
        for tensor in self
            .tensors
            .iter()
            .filter(|tensor| wants(filter, &tensor.slot))
        {
            let (mut name, mut shape) = (tensor.slot.path.clone(), tensor.shape.clone());
            let is_turned = convention == Convention::PyTorch
                && is_linear_weight(&tensor.slot)
                && !tensor.slot.has_load_mapper;
            if convention == Convention::PyTorch && !tensor.slot.path_without_variants.is_empty() {
                name.clone_from(&tensor.slot.path_without_variants);
            }
            if is_turned {
                shape.reverse();
            }
            if convention == Convention::PyTorch
                && let Some(norm) = norm_name(&tensor.slot)
            {
                let before = name.rfind('.').map_or(0, |dot| dot + 1);
                name.replace_range(before.., norm);
            }
            metas.push(TensorMeta {
                name: name.clone(),
                dtype: tensor.dtype,
                shape,
            });
            if let Some((other, _)) = tensors.insert(name.clone(), (tensor, is_turned)) {
                return Err(Error::Unsupported(format!(
                    "`{}` and `{}` would both be called `{name}` in the file: rename a field, or save as Burn has it \
                     (IdentityAdapter)",
                    other.slot.path, tensor.slot.path
                )));
            }
        }
        let mut device_failed = None;
        let written =
            checkpoint::write_with_metadata(path, format, &metas, &metadata, &mut |meta, sink| {
                let (tensor, is_turned) = tensors[&meta.name];
                match (tensor.hand_out)(is_turned, sink) {
                    Ok(()) => Ok(()),
                    Err(Failed::Disk(error)) => Err(error),
                    Err(Failed::Device(error)) => {
                        let reason = format!("`{}` could not be read: {error}", meta.name);
                        device_failed = Some(error);
                        Err(checkpoint::Error::Invalid {
                            path: path.to_owned(),
                            reason,
                        })
                    }
                }
            });
        match (written, device_failed) {
            (_, Some(error)) => Err(error),
            (Err(error), None) => Err(error.into()),
            (Ok(written), None) => Ok(Saved {
                file: path.to_owned(),
                bytes: metas.iter().map(TensorMeta::bytes).sum(),
                digests: written.digests,
            }),
        }
    }
}

/// The format that a name says.
fn format_of(path: &Path) -> Result<Format, Error> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension {
        Some("safetensors") => Ok(Format::Safetensors),
        Some("pth" | "pt") => Ok(Format::Pth),
        Some("bpk") => Ok(Format::Burnpack),
        _ => Err(Error::Unsupported(format!(
            "{}: the name says no format: end it in .safetensors, .pth or .bpk, or say .in_format(…)",
            path.display()
        ))),
    }
}

/// Which side a tensor could not be handed out for.
enum Failed {
    Device(Error),
    Disk(checkpoint::Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Device(error)
    }
}

struct Collector {
    slots: std::vec::IntoIter<Slot>,
    tensors: Vec<ToSave>,
    failed: Option<Error>,
}

impl Collector {
    fn add(&mut self, dtype: DType, shape: Vec<usize>, hand_out: Box<HandOut>) {
        let Some(slot) = self.slots.next() else {
            return;
        };
        let Some(dtype) = stored(dtype) else {
            self.failed.get_or_insert(Error::Unsupported(format!(
                "`{}` is {}, which no format holds: cast it first",
                slot.path,
                dtype.name()
            )));
            return;
        };
        self.tensors.push(ToSave {
            slot,
            dtype,
            shape,
            hand_out,
        });
    }
}

/// The dtype in a file of what has this one in memory.
fn stored(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F64 => Dtype::F64,
        // 8-bit integers with scales are written as what they stand for.
        DType::F32 | DType::Flex32 | DType::QFloat(_) => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::Bf16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool(BoolStore::Native | BoolStore::U8 | BoolStore::U32) => Dtype::Bool,
    })
}

fn hand_out<B: Backend, const D: usize, K>(
    tensor: Tensor<B, D, K>,
    is_turned: bool,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), checkpoint::Error>,
) -> Result<(), Failed>
where
    K: TensorKind<B> + BasicOps<B>,
{
    let tensor = match is_turned {
        true => tensor.swap_dims(0, 1),
        false => tensor,
    };
    read_back(&tensor, &mut |piece| sink(piece).map_err(Failed::Disk))
}

impl<B: Backend> ModuleVisitor<B> for Collector {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        // As Burn saves it: what goes through a function on its way in comes out through another.
        let tensor = param.transform_for_save().val();
        let (dtype, shape) = (tensor.dtype(), tensor.dims().to_vec());
        self.add(
            dtype,
            shape,
            Box::new(move |is_turned, sink| {
                let tensor = match dtype {
                    DType::QFloat(_) => tensor.clone().dequantize(),
                    _ => tensor.clone(),
                };
                hand_out(tensor, is_turned, sink)
            }),
        );
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
        let tensor = param.transform_for_save().val();
        let hand_out = {
            let tensor = tensor.clone();
            move |is_turned, sink: &mut dyn FnMut(&[u8]) -> Result<(), checkpoint::Error>| {
                hand_out(tensor.clone(), is_turned, sink)
            }
        };
        self.add(tensor.dtype(), tensor.dims().to_vec(), Box::new(hand_out));
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
        let tensor = param.transform_for_save().val();
        let hand_out = {
            let tensor = tensor.clone();
            move |is_turned, sink: &mut dyn FnMut(&[u8]) -> Result<(), checkpoint::Error>| {
                hand_out(tensor.clone(), is_turned, sink)
            }
        };
        self.add(tensor.dtype(), tensor.dims().to_vec(), Box::new(hand_out));
    }
}

//! How a checkpoint is loaded: what a caller may say of it.

use std::sync::Arc;

use burn::tensor::DType;
use burn::tensor::quantization::QuantScheme;
use burn_store::PathFilter;
use checkpoint::Access;

use crate::carry::Carrier;
use crate::destinations::Choice;
use crate::place::Staging;
use crate::plan::{Convention, Names};
use crate::{Checkpoint, Error, Observe, Unobserved};

/// How a checkpoint is loaded. Streamed, as it is stored, and all of it, where nothing else is said.
#[must_use = "nothing is loaded before `.into(module)`"]
#[derive(Clone)]
pub struct Load {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) names: Names,
    pub(crate) convention: Option<Convention>,
    pub(crate) cast: Option<DType>,
    pub(crate) scheme: Option<QuantScheme>,
    pub(crate) is_partial: bool,
    pub(crate) is_unused_allowed: bool,
    pub(crate) carrier: Carrier,
    pub(crate) is_mapped: bool,
    pub(crate) is_verified: bool,
    pub(crate) choice: Option<Choice>,
    pub(crate) staging: Staging,
    pub(crate) observer: Arc<dyn Observe>,
    /// The first pattern that is no regular expression, and why: it is told when the load begins.
    bad_pattern: Option<(String, String)>,
}

impl Load {
    /// Of this checkpoint, as it is stored.
    pub(crate) fn new(checkpoint: Checkpoint) -> Load {
        Load {
            checkpoint,
            names: Names::default(),
            convention: None,
            cast: None,
            scheme: None,
            is_partial: false,
            is_unused_allowed: false,
            carrier: Carrier::Stream,
            is_mapped: false,
            is_verified: false,
            choice: None,
            staging: Staging::default(),
            observer: Arc::new(Unobserved),
            bad_pattern: None,
        }
    }
}

/// Who moves the bytes.
impl Load {
    /// One thread reads, tensor after tensor; a second one touches memory of the host's ahead of it. The default.
    pub fn streamed(self) -> Load {
        self.carried_by(Carrier::Stream)
    }

    /// Several threads read at once: what a copy on the host pays for is the first touch of its memory, and they pay for it at
    /// the same time. Past 128 there are no more.
    pub fn parallel(self, threads: usize) -> Load {
        self.carried_by(Carrier::Threads {
            threads,
            access: Access::Buffered,
        })
    }

    /// The same past the page cache (`O_DIRECT`, Linux): for a file that is not in it, and is not to fill it.
    pub fn parallel_direct(self, threads: usize) -> Load {
        self.carried_by(Carrier::Threads {
            threads,
            access: Access::Direct,
        })
    }

    /// One thread past the page cache, with `depth` reads in flight through io_uring (Linux).
    pub fn uring(self, depth: usize) -> Load {
        self.carried_by(Carrier::Uring { depth })
    }

    /// By this carrier.
    pub fn carried_by(mut self, carrier: Carrier) -> Load {
        (self.carrier, self.is_mapped) = (carrier, false);
        self
    }

    /// The file's own pages become the parameters, where they lie there as they are needed: on flex, in the order and dtype that
    /// is wanted, aligned. Nothing of these is read before it is used, processes share them, and the kernel may take every page
    /// back. What is written to them is copied, page by page; the file stays as it is. All others are streamed, and
    /// [`Report`](crate::Report) says which.
    ///
    /// # Safety
    ///
    /// Nobody may write to the file, or truncate it, while any of the parameters lives: bytes that change under a tensor are
    /// undefined behaviour, and touching a page past a file's new end kills the process (SIGBUS).
    pub unsafe fn mapped(mut self) -> Load {
        (self.carrier, self.is_mapped) = (Carrier::Stream, true);
        self
    }

    /// How much may be on its way to all devices at once: 16 MiB where nothing is said. The host holds at most this beside the
    /// model, and a little.
    pub fn staging_bytes(mut self, bytes: usize) -> Load {
        self.staging = Staging { bytes };
        self
    }

    /// To which device each parameter goes, by its path; where nothing is said, it goes to where the module has it. So a model that
    /// no device can hold alone is divided among several: `forward` is to move what it computes from one to the next, with
    /// `to_device`, or over the host (`Tensor::from_data(x.into_data(), device)`) between devices of wgpu, where the former panics
    /// (Burn 0.21).
    ///
    /// Parameters that are one and go to several devices are loaded to each. One whose function changes what is loaded (a linear layer
    /// of column-major layout) is initialised where it was for a moment, where it moves.
    pub fn place<D: Send + Sync + 'static>(
        mut self,
        device: impl Fn(&str) -> D + Send + Sync + 'static,
    ) -> Load {
        self.choice = Some(Choice::of_paths(device));
        self
    }

    /// As [`Load::place`], by what each device has room for, in bytes: the module's parts go to the first device in their order, to the
    /// next when it has no room for one, and so on. A part is an element of a list of layers, or a field of the module, and is not
    /// divided. Parameters alone are counted: leave room for what is computed.
    ///
    /// A part that no device has room for is an error ([`Error::NoRoom`]) before anything is read.
    pub fn divided<D: Send + Sync + 'static>(
        mut self,
        rooms: impl IntoIterator<Item = (D, u64)>,
    ) -> Load {
        self.choice = Some(Choice::rooms(rooms.into_iter().collect()));
        self
    }

    /// Who hears of phases and of memory that is mapped.
    pub fn observed(mut self, observer: Arc<dyn Observe>) -> Load {
        self.observer = observer;
        self
    }
}

/// What becomes of the elements.
impl Load {
    /// Floats become this dtype on the way. A finite value that would become infinite is an error.
    pub fn cast(mut self, dtype: DType) -> Load {
        self.cast = Some(dtype);
        self
    }

    /// Float matrices become 8-bit integers with scales on the way, where the scheme's block divides their rows; all else is
    /// loaded as without. The scheme is symmetric, of `Q8S` values stored natively with `f32` scales, by block of a row.
    pub fn quantised(mut self, scheme: QuantScheme) -> Load {
        self.scheme = Some(scheme);
        self
    }

    /// Reads every parameter back from where it was loaded to, and compares it with the file, read again.
    pub fn verified(mut self) -> Load {
        self.is_verified = true;
        self
    }
}

/// What is loaded, and under which names. The words are burn-store's.
impl Load {
    /// Only parameters whose paths match.
    pub fn filter(mut self, filter: PathFilter) -> Load {
        self.names.filter = Some(filter);
        self
    }

    /// Only parameters whose paths match this regular expression, or another one given so.
    pub fn with_regex(mut self, pattern: &str) -> Load {
        match regex::Regex::new(pattern) {
            Ok(_) => {
                let filter = self.names.filter.take().unwrap_or_default();
                self.names.filter = Some(filter.with_regex(pattern));
            }
            Err(error) => self.refuse(pattern, &error),
        }
        self
    }

    /// Only the parameter with this path, and others given so.
    pub fn with_full_path(mut self, path: impl Into<String>) -> Load {
        let filter = self.names.filter.take().unwrap_or_default();
        self.names.filter = Some(filter.with_full_path(path));
        self
    }

    /// Renames the file's tensors: what matches the regular expression is replaced, in the order in which these are given.
    pub fn with_key_remapping(mut self, from: &str, to: &str) -> Load {
        match regex::Regex::new(from) {
            Ok(pattern) => self.names.remappings.push((pattern, to.to_owned())),
            Err(error) => self.refuse(from, &error),
        }
        self
    }

    fn refuse(&mut self, pattern: &str, error: &regex::Error) {
        let bad = (pattern.to_owned(), error.to_string());
        self.bad_pattern.get_or_insert(bad);
    }

    /// That every pattern is a regular expression.
    pub(crate) fn check_patterns(&self) -> Result<(), Error> {
        match &self.bad_pattern {
            None => Ok(()),
            Some((pattern, reason)) => Err(Error::Pattern {
                pattern: pattern.clone(),
                reason: reason.clone(),
            }),
        }
    }

    /// Whether numbers in the file's names are counted anew, without gaps: `nn.Sequential` numbers layers without parameters,
    /// too.
    pub fn map_indices_contiguous(mut self, is_contiguous: bool) -> Load {
        self.names.is_contiguous = is_contiguous;
        self
    }

    /// Whose conventions the file follows: `PyTorchToBurnAdapter` (linear weights are transposed, norms renamed) or
    /// `IdentityAdapter`. Where nothing is said, the file is asked: `.pth` files are PyTorch's, burnpack files Burn's, safetensors
    /// files mostly say so, and otherwise shapes do; where a square leaves it open, the load is refused.
    pub fn with_from_adapter(mut self, adapter: impl Into<Convention>) -> Load {
        self.convention = Some(adapter.into());
        self
    }

    /// Whether parameters that the file has nothing for may stay as they are.
    pub fn allow_partial(mut self, is_allowed: bool) -> Load {
        self.is_partial = is_allowed;
        self
    }

    /// Whether the file may have tensors that the module has no parameter for. Refused where nothing is said: a module without a
    /// bias that the file has computes something else.
    pub fn allow_unused(mut self, is_allowed: bool) -> Load {
        self.is_unused_allowed = is_allowed;
        self
    }
}

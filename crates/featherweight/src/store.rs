//! burn-store's `ModuleStore` over the library, for programs that use burn-store already: `model.load_from(&mut store)`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use burn::module::ParamId;
use burn::tensor::backend::Backend;
use burn::tensor::{Shape, TensorData};
use burn_store::{
    ApplyResult, ModuleSnapshot, ModuleStore, PathFilter, TensorSnapshot, TensorSnapshotError,
};
use checkpoint::{Access, Format};

use crate::carry::{PieceReader, Source};
use crate::plan::{Convention, Slot, collect};
use crate::save::{Save, ToAdapter, save};
use crate::{Checkpoint, Error, Load};

/// A file that modules are loaded from and saved into. Its options have the names that burn-store gives them.
///
/// What is in the file alone is listed in [`ApplyResult::unused`], as burn-store does it, and is no error.
pub struct Store {
    path: PathBuf,
    options: Vec<Box<dyn Fn(Load) -> Load>>,
    saving: Vec<Box<dyn Fn(Save) -> Save>>,
    opened: Option<Checkpoint>,
    snapshots: Option<BTreeMap<String, TensorSnapshot>>,
}

impl Store {
    /// A file that is looked at when something is asked of it.
    pub fn from_file(path: impl Into<PathBuf>) -> Store {
        Store {
            path: path.into(),
            options: Vec::new(),
            saving: Vec::new(),
            opened: None,
            snapshots: None,
        }
    }

    /// A checkpoint, which is opened now.
    ///
    /// # Errors
    ///
    /// As [`open`](crate::open).
    pub fn open(path: impl Into<PathBuf>) -> Result<Store, Error> {
        let mut store = Store::from_file(path);
        store.opened()?;
        Ok(store)
    }

    /// Anything that a load can be told, such as `.with(|load| load.parallel(4))`.
    pub fn with(mut self, option: impl Fn(Load) -> Load + 'static) -> Store {
        self.options.push(Box::new(option));
        self.snapshots = None;
        self
    }

    /// See [`Load::filter`]; what is saved is filtered, too.
    pub fn filter(mut self, filter: PathFilter) -> Store {
        let own = filter.clone();
        self.saving
            .push(Box::new(move |save| save.filter(own.clone())));
        self.with(move |load| load.filter(filter.clone()))
    }

    /// See [`Load::with_regex`].
    pub fn with_regex(self, pattern: impl Into<String>) -> Store {
        let pattern = pattern.into();
        self.with(move |load| load.with_regex(&pattern))
    }

    /// See [`Load::with_full_path`].
    pub fn with_full_path(self, path: impl Into<String>) -> Store {
        let path = path.into();
        self.with(move |load| load.with_full_path(path.clone()))
    }

    /// See [`Load::with_key_remapping`].
    pub fn with_key_remapping(self, from: impl Into<String>, to: impl Into<String>) -> Store {
        let (from, to) = (from.into(), to.into());
        self.with(move |load| load.with_key_remapping(&from, &to))
    }

    /// See [`Load::map_indices_contiguous`]. As in burn-store it is on for `.pth` files unless it is said to be off.
    pub fn map_indices_contiguous(self, is_contiguous: bool) -> Store {
        self.with(move |load| load.map_indices_contiguous(is_contiguous))
    }

    /// See [`Load::with_from_adapter`].
    pub fn with_from_adapter(self, adapter: impl Into<Convention>) -> Store {
        let convention = adapter.into();
        self.with(move |load| load.with_from_adapter(convention))
    }

    /// See [`Load::allow_partial`].
    pub fn allow_partial(self, is_allowed: bool) -> Store {
        self.with(move |load| load.allow_partial(is_allowed))
    }

    /// See [`Save::with_to_adapter`].
    pub fn with_to_adapter<A: ToAdapter + Copy + 'static>(mut self, adapter: A) -> Store {
        self.saving
            .push(Box::new(move |save| save.with_to_adapter(adapter)));
        self
    }

    /// See [`Save::overwrite`].
    pub fn overwrite(mut self, is_overwriting: bool) -> Store {
        self.saving
            .push(Box::new(move |save| save.overwrite(is_overwriting)));
        self
    }

    /// See [`Save::metadata`].
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Store {
        let (key, value) = (key.into(), value.into());
        self.saving.push(Box::new(move |save| {
            save.metadata(key.clone(), value.clone())
        }));
        self
    }

    fn opened(&mut self) -> Result<&Checkpoint, Error> {
        if self.opened.is_none() {
            self.opened = Some(crate::open(&self.path)?);
        }
        Ok(self.opened.as_ref().expect("it has just been opened"))
    }

    fn load(&mut self) -> Result<Load, Error> {
        let checkpoint = self.opened()?;
        let is_pth = matches!(
            checkpoint.index().format(),
            Format::Pth | Format::ShardedPth
        );
        let load = checkpoint.load().allow_unused(true);
        let load = load.map_indices_contiguous(is_pth);
        let options = self.options.iter();
        Ok(options.fold(load, |load, option| option(load)))
    }
}

impl ModuleStore for Store {
    type Error = Error;

    fn collect_from<B: Backend, M: ModuleSnapshot<B>>(&mut self, module: &M) -> Result<(), Error> {
        let options = self.saving.iter();
        let save = options.fold(save(module), |save, option| option(save));
        save.to(&self.path)?;
        (self.opened, self.snapshots) = (None, None);
        Ok(())
    }

    /// Loads into the module. After an error that comes once something was read, parameters that are not loaded hold zeros: then
    /// the module is not to be used.
    fn apply_to<B: Backend, M: ModuleSnapshot<B>>(
        &mut self,
        module: &mut M,
    ) -> Result<ApplyResult, Error> {
        let load = self.load()?;
        let slots = collect::<B, M>(module).0.into_iter();
        let slots: BTreeMap<String, Slot> = slots.map(|slot| (slot.path.clone(), slot)).collect();
        let names = load.names.clone();
        let report = load.apply(module)?;
        let (missing, skipped): (Vec<String>, Vec<String>) = report
            .kept
            .into_iter()
            .partition(|path| slots.get(path).is_none_or(|slot| names.wants(slot)));
        Ok(ApplyResult {
            applied: report
                .loaded
                .into_iter()
                .map(|loaded| loaded.path)
                .collect(),
            skipped,
            missing: missing
                .into_iter()
                .map(|path| {
                    let slot = slots.get(&path);
                    let container = slot.map(|slot| slot.container.clone());
                    (path, container.unwrap_or_default())
                })
                .collect(),
            unused: report.unused,
            errors: Vec::new(),
        })
    }

    fn get_snapshot(&mut self, name: &str) -> Result<Option<&TensorSnapshot>, Error> {
        Ok(self.get_all_snapshots()?.get(name))
    }

    fn get_all_snapshots(&mut self) -> Result<&BTreeMap<String, TensorSnapshot>, Error> {
        if self.snapshots.is_none() {
            let load = self.load()?;
            load.check_patterns()?;
            let (named, _) = load.names.apply(load.checkpoint.index());
            let named = named.into_iter().map(|named| {
                let source = Source::as_stored(named.tensor.clone());
                let snapshot = snapshot(&named.name, source);
                (named.name, snapshot)
            });
            self.snapshots = Some(named.collect());
        }
        Ok(self.snapshots.as_ref().expect("they have just been listed"))
    }

    fn keys(&mut self) -> Result<Vec<String>, Error> {
        Ok(self.get_all_snapshots()?.keys().cloned().collect())
    }
}

/// A tensor of the file, read when it is asked for.
fn snapshot(name: &str, source: Source) -> TensorSnapshot {
    let (dtype, shape) = (source.cast.dtype(), source.tensor.shape.clone());
    let whole = shape.clone();
    let read = move || {
        let mut bytes = crate::place::heap(source.bytes() as usize);
        PieceReader::new(Access::Buffered)
            .read(&source, 0..source.bytes(), &mut bytes)
            .map_err(|error| TensorSnapshotError::IoError(error.to_string()))?;
        Ok(TensorData::from_bytes(bytes, whole.clone(), dtype))
    };
    TensorSnapshot::from_closure(
        Rc::new(read),
        dtype,
        Shape::from(shape),
        name.split('.').map(str::to_owned).collect(),
        Vec::new(),
        ParamId::new(),
    )
}

//! Loading a checkpoint into a module: it is planned, begun, filled, and assigned.

use std::collections::HashSet;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::quantization::QuantScheme;
use burn::tensor::{Bool, Bytes, Int, Tensor, TensorData};
use checkpoint::{PrivateMaps, Unreadable};

use crate::assign::{self, Supply};
use crate::carry::{Source, carry};
use crate::destinations::Destinations;
use crate::place::{Fill, Filling, Place, Staging, over_map};
use crate::plan::{Item, Kind, Slot, Wanted, collect, fit, share};
use crate::report::{Loaded, Report};
use crate::{Error, Load, Mismatch, Phase, Problem, Way, divided, quantised, verify};

/// A module's parameters beside a checkpoint.
struct Plan<B: Backend> {
    slots: Vec<Slot>,
    items: Vec<Item>,
    destinations: Destinations<B>,
    /// Where the module is now.
    devices: Vec<B::Device>,
}

impl Load {
    /// What would be loaded: everything is checked, and no memory taken.
    fn plan<B: Backend, M: Module<B>>(&self, module: &M) -> Result<Plan<B>, Error> {
        self.check_patterns()?;
        self.checkpoint.check_unchanged()?;
        let index = self.checkpoint.index();
        let mismatch = |mismatch| Error::Mismatch(Box::new(mismatch));
        let (mut slots, devices) = collect::<B, M>(module);
        if slots.is_empty() {
            return Err(mismatch(Mismatch {
                file: index.path().to_owned(),
                problems: vec![Problem::Nothing],
            }));
        }
        let chosen = match &self.choice {
            Some(choice) => choice.begin::<B::Device>(&mut slots)?,
            None => devices.clone(),
        };
        if let Some(scheme) = &self.scheme {
            quantised::check(scheme, self.is_verified)?;
            if chosen.iter().any(B::ad_enabled) {
                let reason = "Burn 0.21 computes with nothing quantised under autodiff: quantise on the backend without";
                return Err(Error::Unsupported(reason.to_owned()));
            }
        }
        if let Some(dtype) = self.cast.filter(|dtype| !dtype.is_float()) {
            let reason = format!("floats cannot be cast to {}", dtype.name());
            return Err(Error::Unsupported(reason));
        }
        let destinations = Destinations::<B>::new(&chosen, &self.observer);
        let wanted = Wanted {
            names: &self.names,
            convention: self.convention,
            cast: self.cast,
            is_partial: self.is_partial,
            is_unused_allowed: self.is_unused_allowed,
            devices: &destinations.abilities(),
        };
        let items = |slots: &[Slot]| {
            let mut items = fit(index, slots, &wanted).map_err(mismatch)?;
            share(index.path(), slots, &mut items)?;
            Ok::<_, Error>(items)
        };
        let mut planned = items(&slots)?;
        let room_bytes = match &self.choice {
            Some(choice) => choice.room_bytes::<B::Device>()?,
            None => None,
        };
        if let Some(room_bytes) = room_bytes {
            let mut loads = vec![None; slots.len()];
            for (at, item) in planned.iter().enumerate() {
                let tensor = item.same_as.unwrap_or(at);
                let bytes = self.bytes(item, &slots[item.slot]);
                loads[item.slot] = Some(divided::Load { tensor, bytes });
            }
            divided::divide(&mut slots, &loads, &room_bytes)?;
            // What another device can do may differ, and parameters that are one may go to several.
            planned = items(&slots)?;
        }
        Ok(Plan {
            slots,
            items: planned,
            destinations,
            devices,
        })
    }

    /// Whether a parameter is quantised on its way.
    fn quantises(&self, item: &Item, slot: &Slot) -> Option<&QuantScheme> {
        let scheme = self.scheme.as_ref()?;
        let fits = slot.kind == Kind::Float
            && !slot.has_load_mapper
            && quantised::fits(scheme, &item.source.tensor.shape);
        fits.then_some(scheme)
    }

    /// What a parameter takes of a device, unless it shares another's tensor.
    fn bytes(&self, item: &Item, slot: &Slot) -> u64 {
        match self.quantises(item, slot) {
            Some(scheme) => quantised::bytes(scheme, &item.source.tensor.shape),
            None => item.source.bytes(),
        }
    }

    /// Loads the checkpoint into the module's parameters. What they hold is let go of first, so that an initialised module takes
    /// no more than a lazy one. Nothing is read, and no memory taken, before everything is known to match.
    ///
    /// Parameters that are loaded on a backend without autodiff want gradients after `.train()`, whatever they wanted before:
    /// Burn 0.21 does not say. Clones of the module keep what they have, but for the running state of batch norms, which clones
    /// share in Burn.
    ///
    /// # Errors
    ///
    /// If module and checkpoint do not match ([`Error::Mismatch`], everything at once), the file cannot be read, or the device
    /// refuses. The module is lost then.
    pub fn into<B: Backend, M: Module<B>>(self, module: M) -> Result<(M, Report), Error> {
        let start = Instant::now();
        self.observer.enter(Phase::Open);
        let plan = self.plan::<B, M>(&module)?;
        self.load_planned(plan, module, start)
    }

    /// As [`Load::into`], into a module that stays where it is.
    ///
    /// # Errors
    ///
    /// As [`Load::into`]. After an error that comes once something was read, parameters that are not loaded hold zeros: then the
    /// module is not to be used.
    pub fn apply<B: Backend, M: Module<B>>(self, module: &mut M) -> Result<Report, Error> {
        let start = Instant::now();
        self.observer.enter(Phase::Open);
        let plan = self.plan::<B, M>(module)?;
        // What is let go of by the clone is let go of by the module when the clone takes its place.
        *module = self.let_go(module.clone(), &plan.slots, &plan.items);
        let (loaded, report) = self.load_planned(plan, module.clone(), start)?;
        *module = loaded;
        Ok(report)
    }

    fn load_planned<B: Backend, M: Module<B>>(
        self,
        plan: Plan<B>,
        module: M,
        start: Instant,
    ) -> Result<(M, Report), Error> {
        let Plan {
            slots,
            items,
            destinations,
            devices,
        } = plan;
        let held = items.iter().any(|item| slots[item.slot].is_initialised);
        let module = self.let_go(module, &slots, &items);
        if held {
            Destinations::<B>::new(&devices, &self.observer).reclaim()?;
        }

        self.observer.enter(Phase::Materialise);
        let shares: HashSet<usize> = items.iter().filter_map(|item| item.same_as).collect();
        let mut ready = Vec::with_capacity(items.len());
        let mut ways = Vec::with_capacity(items.len());
        let mut maps = PrivateMaps::default();
        for item in &items {
            let slot = &slots[item.slot];
            let place = destinations.of(slot);
            let one = self.begin(item, slot, place, &mut maps)?;
            ways.push(match &one {
                Ready::Mapped { .. } => Way::Mapped,
                _ => place.way(),
            });
            ready.push(one);
        }
        // In the order of the files, as disks and the kernel's reading ahead like it.
        let mut begun: Vec<(&Source, &mut dyn Fill)> = items
            .iter()
            .zip(&mut ready)
            .filter_map(|(item, ready)| match ready {
                Ready::Begun(filling) => Some((&item.source, filling.fill())),
                _ => None,
            })
            .collect();
        begun.sort_by(|(one, _), (other, _)| {
            let lies = |source: &Source| (source.tensor.file.clone(), source.tensor.offset);
            lies(one).cmp(&lies(other))
        });
        let (sources, mut fills): (Vec<Source>, Vec<_>) = begun
            .into_iter()
            .map(|(source, fill)| (source.clone(), fill))
            .unzip();
        let observer = &*self.observer;
        // Each device has pieces of its own.
        let staging = Staging {
            bytes: self.staging.bytes / destinations.count(),
        };
        carry(&sources, &mut fills, self.carrier, staging, observer)?;
        drop(fills);

        self.observer.enter(Phase::Assign);
        let paths = items.iter().enumerate().map(|(at, item)| {
            let of = item.same_as.unwrap_or(at);
            let is_shared = shares.contains(&of);
            (
                slots[item.slot].path.clone(),
                assign::Place { of, is_shared },
            )
        });
        let mut supply = Loading {
            load: &self,
            slots: &slots,
            items: &items,
            destinations: &destinations,
            ready: ready.into_iter().map(Some).collect(),
        };
        let module = assign::assign(module, paths.collect(), &mut supply)?;
        destinations.finish()?;
        if self.is_verified {
            verify::verify(&module, &slots, &items)?;
        }
        // Who writes to a file while it is read gets a part of each.
        self.checkpoint.check_unchanged()?;
        let report = self.report(&slots, &items, &ways, start);
        Ok((module, report))
    }

    /// Lets go of what parameters hold that are to be loaded.
    fn let_go<B: Backend, M: Module<B>>(&self, module: M, slots: &[Slot], items: &[Item]) -> M {
        let held = items.iter().map(|item| &slots[item.slot]);
        let held: Vec<&str> = held
            .filter(|slot| slot.is_initialised)
            .map(|slot| &*slot.path)
            .collect();
        match held.is_empty() {
            true => module,
            false => {
                self.observer.enter(Phase::Drop);
                assign::release(module, &held)
            }
        }
    }

    fn begin<B: Backend>(
        &self,
        item: &Item,
        slot: &Slot,
        place: &Place<B>,
        maps: &mut PrivateMaps,
    ) -> Result<Ready<B>, Error> {
        let source = &item.source;
        let tensor = &source.tensor;
        if item.same_as.is_some() {
            return Ok(Ready::Shared);
        }
        if self.quantises(item, slot).is_some() {
            return Ok(Ready::Quantised);
        }
        let is_as_needed = source.cast.is_none()
            && tensor.is_contiguous()
            && tensor.offset.is_multiple_of(tensor.dtype.bytes());
        if self.is_mapped && place.way() == Way::InPlace && is_as_needed && source.bytes() > 0 {
            let rows = tensor.shape.first().copied().unwrap_or(1);
            // SAFETY: who called `mapped` has promised that nobody changes the file.
            let map = unsafe { maps.rows(tensor, 0..rows)? };
            return Ok(Ready::Mapped(over_map(map)));
        }
        match place.way() {
            // One after the other: all together would be the model on the host.
            Way::Whole => Ok(Ready::Later),
            _ => Ok(Ready::Begun(
                place.begin(&tensor.shape, source.cast.dtype())?,
            )),
        }
    }

    fn report(&self, slots: &[Slot], items: &[Item], ways: &[Way], start: Instant) -> Report {
        let loaded = items.iter().zip(ways).map(|(item, &way)| {
            let slot = &slots[item.slot];
            Loaded {
                path: slot.path.clone(),
                tensor: item.source.tensor.name.clone(),
                shape: slot.shape.clone(),
                stored: item.source.cast.stored(),
                dtype: item.source.cast.dtype(),
                bytes: match item.same_as {
                    Some(_) => 0,
                    None => self.bytes(item, slot),
                },
                way,
                is_transposed: item.is_transposed,
                same_as: item.same_as.map(|one| slots[items[one].slot].path.clone()),
            }
        });
        let is_loaded: HashSet<usize> = items.iter().map(|item| item.slot).collect();
        let kept = slots.iter().enumerate();
        let kept = kept.filter(|(place, _)| !is_loaded.contains(place));
        let used: HashSet<&str> = items.iter().map(|item| &*item.source.tensor.name).collect();
        let index = self.checkpoint.index();
        let unreadable = index
            .others()
            .iter()
            .filter(|other| other.tensor().is_none());
        let unreadable = unreadable.filter(|other| {
            let reason = &other.reason;
            !matches!(reason, Unreadable::NoTensor | Unreadable::Missing { .. })
        });
        let all = index.all().map(|tensor| &*tensor.name);
        let all = all.chain(unreadable.map(|other| &*other.name));
        Report {
            file: index.path().to_owned(),
            loaded: loaded.collect(),
            kept: kept.map(|(_, slot)| slot.path.clone()).collect(),
            unused: all
                .filter(|name| !used.contains(name))
                .map(str::to_owned)
                .collect(),
            seconds: start.elapsed().as_secs_f64(),
        }
    }
}

/// What a parameter is made of, when it is assigned.
enum Ready<B: Backend> {
    /// Memory that is filled.
    Begun(Filling<B>),
    /// The file's pages.
    Mapped(Bytes),
    /// Read then, whole.
    Later,
    /// Read and quantised then.
    Quantised,
    /// Another's.
    Shared,
}

/// Makes tensors of what is ready.
struct Loading<'a, B: Backend> {
    load: &'a Load,
    slots: &'a [Slot],
    items: &'a [Item],
    destinations: &'a Destinations<B>,
    ready: Vec<Option<Ready<B>>>,
}

impl<B: Backend> Loading<'_, B> {
    /// Where an item goes.
    fn place(&self, item: usize) -> &Place<B> {
        self.destinations.of(&self.slots[self.items[item].slot])
    }

    fn take(&mut self, place: usize) -> Result<(Ready<B>, &Source), Error> {
        let ready = self.ready[place].take().unwrap_or(Ready::Shared);
        let source = &self.items[place].source;
        match ready {
            Ready::Later => {
                let mut filling = self
                    .place(place)
                    .begin(&source.tensor.shape, source.cast.dtype())?;
                let (load, sources) = (self.load, std::slice::from_ref(source));
                let fills = &mut [filling.fill()];
                carry(sources, fills, load.carrier, load.staging, &*load.observer)?;
                load.observer.enter(Phase::Upload);
                Ok((Ready::Begun(filling), source))
            }
            ready => Ok((ready, source)),
        }
    }

    /// A file's pages, as data of Burn's.
    fn data(source: &Source, bytes: Bytes) -> TensorData {
        TensorData::from_bytes(bytes, source.tensor.shape.clone(), source.cast.dtype())
    }
}

fn asked_twice<T>() -> Result<T, Error> {
    Err(Error::Unsupported(
        "a parameter was met twice: this module's `map` does not go its `visit`'s way".to_owned(),
    ))
}

impl<B: Backend> Supply<B> for Loading<'_, B> {
    fn float<const D: usize>(&mut self, place: usize) -> Result<Tensor<B, D>, Error> {
        let device = self.place(place).device().clone();
        let scheme = self.load.scheme;
        match self.take(place)? {
            (Ready::Begun(filling), _) => filling.into_float(),
            (Ready::Mapped(bytes), source) => {
                let dtype = source.cast.dtype();
                Ok(Tensor::from_data(
                    Self::data(source, bytes),
                    (&device, dtype),
                ))
            }
            (Ready::Quantised, source) => {
                let source = source.clone();
                match scheme {
                    Some(scheme) => quantised::load(&source, scheme, self.place(place)),
                    None => asked_twice(),
                }
            }
            (Ready::Later | Ready::Shared, _) => asked_twice(),
        }
    }

    fn int<const D: usize>(&mut self, place: usize) -> Result<Tensor<B, D, Int>, Error> {
        let device = self.place(place).device().clone();
        match self.take(place)? {
            (Ready::Begun(filling), _) => filling.into_int(),
            (Ready::Mapped(bytes), source) => {
                let dtype = source.cast.dtype();
                Ok(Tensor::from_data(
                    Self::data(source, bytes),
                    (&device, dtype),
                ))
            }
            _ => asked_twice(),
        }
    }

    fn bool<const D: usize>(&mut self, place: usize) -> Result<Tensor<B, D, Bool>, Error> {
        match self.take(place)? {
            (Ready::Begun(filling), _) => filling.into_bool(),
            _ => asked_twice(),
        }
    }
}

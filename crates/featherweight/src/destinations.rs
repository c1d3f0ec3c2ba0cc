//! The devices that a module's parameters go to.

use std::any::Any;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{DType, get_device_settings};

use crate::place::{Place, Way};
use crate::plan::{Abilities, Slot, place_in};
use crate::{Error, Observe};

/// A caller's choice of devices. Of which backend they are is known when a module is.
#[derive(Clone)]
pub(crate) struct Choice(Arc<dyn Any + Send + Sync>);

/// The same, of a backend's.
enum Devices<D> {
    /// For each parameter, by its path.
    OfPaths(Box<dyn Fn(&str) -> D + Send + Sync>),
    /// In their order, each with the bytes that it has room for.
    Rooms(Vec<(D, u64)>),
}

impl Choice {
    pub fn of_paths<D: Send + Sync + 'static>(
        choose: impl Fn(&str) -> D + Send + Sync + 'static,
    ) -> Choice {
        Choice(Arc::new(Devices::OfPaths(Box::new(choose))))
    }

    pub fn rooms<D: Send + Sync + 'static>(rooms: Vec<(D, u64)>) -> Choice {
        Choice(Arc::new(Devices::Rooms(rooms)))
    }

    /// Gives each slot its device, where paths decide; else the first. Returns the devices.
    ///
    /// # Errors
    ///
    /// If the devices are another backend's, or there are none.
    pub fn begin<D: Clone + PartialEq + 'static>(
        &self,
        slots: &mut [Slot],
    ) -> Result<Vec<D>, Error> {
        let mut devices = Vec::new();
        match self.devices::<D>()? {
            Devices::OfPaths(choose) => {
                for slot in slots {
                    slot.device = place_in(&mut devices, choose(&slot.path));
                }
            }
            Devices::Rooms(rooms) => {
                slots.iter_mut().for_each(|slot| slot.device = 0);
                for (device, _) in rooms {
                    let before = devices.len();
                    if place_in(&mut devices, device.clone()) < before {
                        let reason =
                            "`.divided` is given a device twice: add up what it has room for";
                        return Err(Error::Unsupported(reason.to_owned()));
                    }
                }
            }
        }
        match devices.is_empty() {
            true => Err(Error::Unsupported(
                "`.divided` is given no device".to_owned(),
            )),
            false => Ok(devices),
        }
    }

    /// What each device has room for, where that decides.
    pub fn room_bytes<D: 'static>(&self) -> Result<Option<Vec<u64>>, Error> {
        Ok(match self.devices::<D>()? {
            Devices::OfPaths(_) => None,
            Devices::Rooms(rooms) => Some(rooms.iter().map(|(_, bytes)| *bytes).collect()),
        })
    }

    fn devices<D: 'static>(&self) -> Result<&Devices<D>, Error> {
        self.0.downcast_ref().ok_or_else(|| {
            let wanted = std::any::type_name::<D>();
            Error::Unsupported(format!(
                "`.place` or `.divided` gives devices of another backend than the module's: give a {wanted}"
            ))
        })
    }
}

/// A place on each device, in the order that [`Slot::device`] has.
pub(crate) struct Destinations<B: Backend>(Vec<Place<B>>);

impl<B: Backend> Destinations<B> {
    pub fn new(devices: &[B::Device], observer: &Arc<dyn Observe>) -> Destinations<B> {
        let places = devices.iter();
        Destinations(
            places
                .map(|device| Place::new(device, Arc::clone(observer)))
                .collect(),
        )
    }

    /// Where this parameter goes.
    pub fn of(&self, slot: &Slot) -> &Place<B> {
        &self.0[slot.device]
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What each device can do.
    pub fn abilities(&self) -> Vec<Abilities> {
        let of = |place: &Place<B>| {
            let (device, settings) = (
                place.device().clone(),
                get_device_settings::<B>(place.device()),
            );
            Abilities {
                int: settings.int_dtype.into(),
                bool: settings.bool_dtype.into(),
                supports: Box::new(move |dtype| {
                    B::supports_dtype(&device, dtype) || matches!(dtype, DType::Bool(_))
                }),
                max_tensor_bytes: place.max_tensor_bytes(),
            }
        };
        self.0.iter().map(of).collect()
    }

    /// Has devices give back what was let go of. Under fusion drops are deferred, and pools keep what is dropped: 1.7 times the model
    /// otherwise.
    pub fn reclaim(&self) -> Result<(), Error> {
        for place in self.0.iter().filter(|place| place.way() == Way::InPieces) {
            let device = place.device();
            B::sync(device).map_err(|error| Error::device(device, error))?;
            B::memory_cleanup(device);
        }
        Ok(())
    }

    /// Waits until everything that was written is where it goes.
    pub fn finish(&self) -> Result<(), Error> {
        self.0.iter().try_for_each(Place::finish)
    }
}

//! The devices that a module's parameters go to.

use std::any::Any;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{DType, get_device_settings};

use crate::place::{Place, Way};
use crate::plan::{Abilities, Slot, place_in};
use crate::{Error, Observe};

/// A caller's choice of a device for each parameter, by its path. Of which backend the devices are is known when a module is.
#[derive(Clone)]
pub(crate) struct Choice(Arc<dyn Any + Send + Sync>);

type Choose<D> = Box<dyn Fn(&str) -> D + Send + Sync>;

impl Choice {
    pub fn new<D: 'static>(choose: impl Fn(&str) -> D + Send + Sync + 'static) -> Choice {
        let choose: Choose<D> = Box::new(choose);
        Choice(Arc::new(choose))
    }

    /// Gives each parameter its device.
    ///
    /// # Errors
    ///
    /// If the devices are another backend's.
    pub fn apply<D: PartialEq + 'static>(&self, slots: &mut [Slot]) -> Result<Vec<D>, Error> {
        let choose = self.0.downcast_ref::<Choose<D>>().ok_or_else(|| {
            let wanted = std::any::type_name::<D>();
            let reason = format!(
                "`.place` gives other devices than the module's backend has: give a {wanted}"
            );
            Error::Unsupported(reason)
        })?;
        let mut devices = Vec::new();
        for slot in slots {
            slot.device = place_in(&mut devices, choose(&slot.path));
        }
        Ok(devices)
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
    pub fn abilities(&self) -> Vec<Abilities<'_>> {
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

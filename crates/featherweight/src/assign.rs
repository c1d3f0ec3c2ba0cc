//! A module's parameters let go of, and replaced. Neither initialises any, and neither panics: batch norm's state holds a lock
//! while it is mapped. (Burn 0.21.)

use std::any::Any;
use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleMapper, Param, ParamMapper, Parameter};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Shape, Tensor};

use crate::Error;

/// Where a mapper is in a module.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn text(&self) -> String {
        self.0.join(".")
    }
}

/// Lets go of what the parameters with these paths hold; they are lazy again, with the gradient setting and functions that
/// they had.
pub(crate) fn release<B: Backend, M: Module<B>>(module: M, paths: &[&str]) -> M {
    let mut releaser = Releaser {
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        at: Path::default(),
    };
    module.map(&mut releaser)
}

struct Releaser {
    paths: HashSet<String>,
    at: Path,
}

/// A parameter with the functions of another.
fn with_mapper<T: Parameter + 'static>(param: Param<T>, mapper: ParamMapper<T>) -> Param<T>
where
    ParamMapper<T>: Send + Sync,
{
    // Only where there are some: else it would seem that there were.
    let debug = format!("{mapper:?}");
    let (load, save) = (mapper.clone(), mapper);
    let param = match debug.contains("load: true") {
        true => param.load_mapper(move |value| load.on_load(value)),
        false => param,
    };
    match debug.contains("save: true") {
        true => param.save_mapper(move |value| save.on_save(value)),
        false => param,
    }
}

impl<B: Backend> ModuleMapper<B> for Releaser {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.at.0.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        match self.lets_go(&param) {
            true => lazy_float(param, None),
            false => param,
        }
    }

    fn map_int<const D: usize>(
        &mut self,
        param: Param<Tensor<B, D, Int>>,
    ) -> Param<Tensor<B, D, Int>> {
        match self.lets_go(&param) {
            true => lazy_int(param, None),
            false => param,
        }
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<B, D, Bool>>,
    ) -> Param<Tensor<B, D, Bool>> {
        match self.lets_go(&param) {
            true => lazy_bool(param, None),
            false => param,
        }
    }
}

impl Releaser {
    fn lets_go<T: Parameter>(&self, param: &Param<T>) -> bool {
        param.is_initialized() && self.paths.contains(&self.at.text())
    }
}

/// The same parameter without memory, with the gradient setting and functions that it had; on another device, where one is given.
fn lazy_float<B: Backend, const D: usize>(
    param: Param<Tensor<B, D>>,
    device: Option<B::Device>,
) -> Param<Tensor<B, D>> {
    let (before, shape) = (param.lazy_device(), param.lazy_shape());
    let param = match tells_without_memory(&param) {
        true => param,
        false => {
            let id = param.id;
            param.transform_for_load(Tensor::zeros([1; D], &before), id)
        }
    };
    // Without autodiff nothing wants gradients: then the module's wish is not known, and is taken to be the usual one.
    let is_trained = !B::ad_enabled(&before) || param.is_require_grad();
    let (id, tensor, mapper) = param.consume();
    drop(tensor);
    let zeros = shape.clone();
    let init = move |device: &B::Device, is_trained: bool| {
        Tensor::zeros(zeros.clone(), device).set_require_grad(is_trained)
    };
    let device = device.unwrap_or(before);
    with_mapper(
        Param::uninitialized(id, init, device, is_trained, shape),
        mapper,
    )
}

/// As [`lazy_float`].
fn lazy_int<B: Backend, const D: usize>(
    param: Param<Tensor<B, D, Int>>,
    device: Option<B::Device>,
) -> Param<Tensor<B, D, Int>> {
    let (before, shape) = (param.lazy_device(), param.lazy_shape());
    let param = match tells_without_memory(&param) {
        true => param,
        false => {
            let id = param.id;
            param.transform_for_load(Tensor::zeros([1; D], &before), id)
        }
    };
    let (id, tensor, mapper) = param.consume();
    drop(tensor);
    let zeros = shape.clone();
    let init = move |device: &B::Device, _: bool| Tensor::zeros(zeros.clone(), device);
    let device = device.unwrap_or(before);
    with_mapper(Param::uninitialized(id, init, device, false, shape), mapper)
}

/// As [`lazy_float`].
fn lazy_bool<B: Backend, const D: usize>(
    param: Param<Tensor<B, D, Bool>>,
    device: Option<B::Device>,
) -> Param<Tensor<B, D, Bool>> {
    let (before, shape) = (param.lazy_device(), param.lazy_shape());
    let zeros = |shape: Shape, device: &B::Device| Tensor::<B, D, Int>::zeros(shape, device).bool();
    let param = match tells_without_memory(&param) {
        true => param,
        false => {
            let id = param.id;
            param.transform_for_load(zeros([1; D].into(), &before), id)
        }
    };
    let (id, tensor, mapper) = param.consume();
    drop(tensor);
    let empty = shape.clone();
    let init = move |device: &B::Device, _: bool| zeros(empty.clone(), device);
    let device = device.unwrap_or(before);
    with_mapper(Param::uninitialized(id, init, device, false, shape), mapper)
}

/// Whether a parameter can be taken apart as it is. A lazy one would be initialised by that: it is loaded with next to nothing
/// instead, unless a function goes over what is loaded, which may expect the shape. (Burn 0.21.)
fn tells_without_memory<T: Parameter>(param: &Param<T>) -> bool {
    param.is_initialized() || format!("{param:?}").contains("load: true")
}

/// Gives tensors for parameters.
pub(crate) trait Supply<B: Backend> {
    /// The float tensor of a parameter, by its place among those that are to be assigned.
    fn float<const D: usize>(&mut self, place: usize) -> Result<Tensor<B, D>, Error>;
    /// The tensor of integers.
    fn int<const D: usize>(&mut self, place: usize) -> Result<Tensor<B, D, Int>, Error>;
    /// The tensor of booleans.
    fn bool<const D: usize>(&mut self, place: usize) -> Result<Tensor<B, D, Bool>, Error>;
}

/// Assigns what `supply` gives for each of these paths to its parameter. A place that another one shares is asked for once.
///
/// # Errors
///
/// The first of `supply`'s; every other parameter is assigned all the same, or stays as it was.
pub(crate) fn assign<B: Backend, M: Module<B>, S: Supply<B>>(
    module: M,
    paths: HashMap<String, Place>,
    supply: &mut S,
) -> Result<M, Error> {
    let mut assigner = Assigner {
        paths,
        at: Path::default(),
        supply,
        shared: HashMap::new(),
        failed: None,
    };
    let module = module.map(&mut assigner);
    match assigner.failed {
        None => Ok(module),
        Some(error) => Err(error),
    }
}

/// What a parameter is assigned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Which one of those that the supply has.
    pub of: usize,
    /// Whether others are assigned the same.
    pub is_shared: bool,
}

struct Assigner<'a, S> {
    paths: HashMap<String, Place>,
    at: Path,
    supply: &'a mut S,
    /// Tensors that several parameters share, by place.
    shared: HashMap<usize, Box<dyn Any>>,
    failed: Option<Error>,
}

impl<S> Assigner<'_, S> {
    /// The tensor for where the mapper is.
    fn tensor<T: Clone + 'static>(
        &mut self,
        get: impl FnOnce(&mut S, usize) -> Result<T, Error>,
    ) -> Option<T> {
        let place = *self.paths.get(&self.at.text())?;
        if let Some(shared) = self.shared.get(&place.of) {
            return shared.downcast_ref::<T>().cloned();
        }
        if self.failed.is_some() {
            return None;
        }
        match get(self.supply, place.of) {
            Ok(tensor) => {
                if place.is_shared {
                    self.shared.insert(place.of, Box::new(tensor.clone()));
                }
                Some(tensor)
            }
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }
}

impl<B: Backend, S: Supply<B>> ModuleMapper<B> for Assigner<'_, S> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.at.0.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some(tensor) = self.tensor(|supply, place| supply.float::<D>(place)) else {
            return param;
        };
        let param = match param.lazy_device() == tensor.device() {
            true => param,
            false => lazy_float(param, Some(tensor.device())),
        };
        let id = param.id;
        let loaded = param.transform_for_load(tensor, id);
        match B::ad_enabled(&loaded.lazy_device()) {
            true => loaded,
            false => wanting_gradients(loaded),
        }
    }

    fn map_int<const D: usize>(
        &mut self,
        param: Param<Tensor<B, D, Int>>,
    ) -> Param<Tensor<B, D, Int>> {
        let id = param.id;
        match self.tensor(|supply, place| supply.int::<D>(place)) {
            Some(tensor) if param.lazy_device() == tensor.device() => {
                param.transform_for_load(tensor, id)
            }
            // It would be moved to where the parameter was.
            Some(tensor) => lazy_int(param, Some(tensor.device())).transform_for_load(tensor, id),
            None => param,
        }
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<B, D, Bool>>,
    ) -> Param<Tensor<B, D, Bool>> {
        let id = param.id;
        match self.tensor(|supply, place| supply.bool::<D>(place)) {
            Some(tensor) if param.lazy_device() == tensor.device() => {
                param.transform_for_load(tensor, id)
            }
            // It would be moved to where the parameter was.
            Some(tensor) => lazy_bool(param, Some(tensor.device())).transform_for_load(tensor, id),
            None => param,
        }
    }
}

/// The same parameter, which wants gradients once it is on a backend that has them. What is loaded on one without would not: a
/// parameter remembers what its tensor wants, and there a tensor wants none. (`from_inner` in burn-core 0.21.)
fn wanting_gradients<B: Backend, const D: usize>(
    param: Param<Tensor<B, D>>,
) -> Param<Tensor<B, D>> {
    let (id, tensor, mapper) = param.consume();
    let (device, shape) = (tensor.device(), tensor.shape());
    let init = move |_: &B::Device, _: bool| tensor.clone();
    let param = with_mapper(Param::uninitialized(id, init, device, true, shape), mapper);
    // Initialised by what was loaded, so that the function is let go of.
    drop(param.val());
    param
}

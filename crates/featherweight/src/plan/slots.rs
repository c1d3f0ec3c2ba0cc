//! The parameters of a module: their paths, shapes and identities, without initialising any. (Burn 0.21.)

use std::fmt;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor};

/// Of what kind a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Floats, or what they are quantised to.
    Float,
    /// Integers.
    Int,
    /// Booleans.
    Bool,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Float => "float",
            Kind::Int => "int",
            Kind::Bool => "bool",
        })
    }
}

/// A parameter's place in a module.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// The names of fields, indices and variants that lead to it, with dots between.
    pub path: String,
    /// What it is of.
    pub kind: Kind,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The same for parameters that are one.
    pub id: ParamId,
    /// Whether it holds memory.
    pub is_initialised: bool,
    /// The module that it is a field of, as Burn has it: `Struct:Linear`.
    pub(crate) container: String,
    /// All that it is in, from the outermost, as burn-store's filters have it: `Struct:Model.Vec.Struct:Linear`.
    pub(crate) containers: String,
    /// Its path without the names of enums' variants, which no other framework has; empty where it is the same.
    pub(crate) path_without_variants: String,
    /// Whether what is loaded goes through a function first, as a linear layer's of column-major layout.
    pub(crate) has_load_mapper: bool,
    /// Which of the devices it lies on, or is to.
    pub(crate) device: usize,
}

/// All parameters of a module, in its order, and its devices.
pub(crate) fn collect<B: Backend, M: Module<B>>(module: &M) -> (Vec<Slot>, Vec<B::Device>) {
    let mut collector = Collector::<B> {
        slots: Vec::new(),
        devices: Vec::new(),
        names: Vec::new(),
    };
    module.visit(&mut collector);
    (collector.slots, collector.devices)
}

/// Where this one is among others; it is added where it is not.
pub(crate) fn place_in<T: PartialEq>(all: &mut Vec<T>, one: T) -> usize {
    let place = all.iter().position(|other| *other == one);
    place.unwrap_or_else(|| {
        all.push(one);
        all.len() - 1
    })
}

struct Collector<B: Backend> {
    slots: Vec<Slot>,
    devices: Vec<B::Device>,
    /// The way to where the visitor is: each name, and what it is a part of.
    names: Vec<(String, String)>,
}

impl<B: Backend> Collector<B> {
    /// Which of the devices it is.
    fn meet(&mut self, device: B::Device) -> usize {
        place_in(&mut self.devices, device)
    }

    fn add(
        &mut self,
        id: ParamId,
        kind: Kind,
        shape: Vec<usize>,
        is_initialised: bool,
        debug: &dyn fmt::Debug,
        device: usize,
    ) {
        let join = |names: &mut dyn Iterator<Item = &(String, String)>| -> String {
            let names: Vec<&str> = names.map(|(name, _)| &**name).collect();
            names.join(".")
        };
        let path = join(&mut self.names.iter());
        let is_no_variant = |(_, container): &&(String, String)| !container.starts_with("Enum:");
        let without = join(&mut self.names.iter().filter(is_no_variant));
        let container = self.names.iter().rev();
        let mut container = container.map(|(_, container)| container);
        let container =
            container.find(|name| name.starts_with("Struct:") || name.starts_with("Enum:"));
        self.slots.push(Slot {
            path_without_variants: if without == path {
                String::new()
            } else {
                without
            },
            path,
            kind,
            shape,
            id,
            is_initialised,
            container: container.cloned().unwrap_or_default(),
            containers: {
                let all: Vec<&str> = self.names.iter().map(|(_, name)| &**name).collect();
                all.join(".")
            },
            // Burn 0.21 says it nowhere else.
            has_load_mapper: format!("{debug:?}").contains("load: true"),
            device,
        });
    }
}

impl<B: Backend> ModuleVisitor<B> for Collector<B> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.names.push((name.to_owned(), container.to_owned()));
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.names.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let device = self.meet(param.lazy_device());
        let shape = param.lazy_shape().iter().copied().collect();
        self.add(
            param.id,
            Kind::Float,
            shape,
            param.is_initialized(),
            param,
            device,
        );
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
        let device = self.meet(param.lazy_device());
        let shape = param.lazy_shape().iter().copied().collect();
        self.add(
            param.id,
            Kind::Int,
            shape,
            param.is_initialized(),
            param,
            device,
        );
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
        let device = self.meet(param.lazy_device());
        let shape = param.lazy_shape().iter().copied().collect();
        self.add(
            param.id,
            Kind::Bool,
            shape,
            param.is_initialized(),
            param,
            device,
        );
    }
}

//! Telling a tensor from how a pickle would build it.

use super::value::{Object, Pickle, Value};
use crate::Dtype;

/// What an entry of a dictionary is, by how it would be built.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Built<'a> {
    /// A plain tensor, or a parameter.
    Tensor(Tensor<'a>),
    /// A tensor that is not read here, with why as the end of a sentence.
    Refused(String),
    /// An array of NumPy's.
    Array,
    /// A whole module of this class.
    Module(&'a str),
    /// Neither.
    Nothing,
}

/// A plain tensor: a view into a storage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tensor<'a> {
    pub storage: Value,
    pub offset: Value,
    pub shape: Value,
    pub strides: Value,
    /// Where it is not the storage that says it.
    pub dtype: Option<&'a str>,
}

/// A parameter holds a tensor, which may be a view with attributes, and no other parameter.
const MAX_WRAPPERS: usize = 4;

/// A module or a parameter has few attributes of interest, and these come first.
const MAX_ATTRIBUTES: usize = 64;
/// Attributes of which setting one sets the values of a tensor.
const VALUES: [&str; 3] = ["data", "real", "imag"];

/// What makes an array of NumPy's, in its versions and the pickle's.
const NUMPY: [&str; 4] = [
    "numpy._core.multiarray._reconstruct",
    "numpy._core.numeric._frombuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.numeric._frombuffer",
];

/// What `value` is.
pub(super) fn built(pickle: &Pickle, mut value: Value) -> Built<'_> {
    for _ in 0..MAX_WRAPPERS {
        let Some(object) = pickle.object(value) else {
            return Built::Nothing;
        };
        let arguments = pickle.tuple(object.arguments).unwrap_or_default();
        let Some(name) = pickle.global(object.callable) else {
            return Built::Nothing;
        };
        if let Some(class) = module(pickle, object) {
            return Built::Module(class);
        }
        if NUMPY.contains(&name) {
            return Built::Array;
        }
        let Some(function) = name.strip_prefix("torch._utils.").or_else(|| {
            let function = name.strip_prefix("torch._tensor.")?;
            function.starts_with("_rebuild").then_some(function)
        }) else {
            return Built::Nothing;
        };
        // What is set on a tensor when it is built: its values, perhaps.
        if object.state.is_some() || !object.entries.is_empty() || object.has_keywords {
            return Built::Refused(
                "is changed after it is built, which is not done here".to_owned(),
            );
        }
        match (function, arguments) {
            ("_rebuild_parameter", [tensor, ..]) => value = *tensor,
            ("_rebuild_parameter_with_state", [tensor, _, _, state]) => {
                if let Some(refused) = attributes(pickle, *state) {
                    return refused;
                }
                value = *tensor;
            }
            ("_rebuild_from_type_v2", [function, class, arguments, state]) => {
                let class = pickle.global(*class).unwrap_or("a class without a name");
                if !is_plain(class) {
                    return Built::Refused(format!(
                        "is of {class}, a class derived from a tensor: save it as a plain one, with \
                         .as_subclass(torch.Tensor)"
                    ));
                }
                if let Some(refused) = attributes(pickle, *state) {
                    return refused;
                }
                let arguments = pickle.tuple(*arguments).unwrap_or_default();
                return match pickle.global(*function) {
                    Some(name) => plain(
                        pickle,
                        name.strip_prefix("torch._utils.").unwrap_or(name),
                        arguments,
                    ),
                    None => Built::Refused("is built by what has no name".to_owned()),
                };
            }
            _ => return plain(pickle, function, arguments),
        }
    }
    Built::Refused("is wrapped more often than any tensor".to_owned())
}

fn is_plain(class: &str) -> bool {
    matches!(
        class,
        "torch.Tensor"
            | "torch._tensor.Tensor"
            | "torch.nn.parameter.Parameter"
            | "torch.nn.parameter.Buffer"
    )
}

/// Attributes of a tensor are no part of its values, but for a few.
fn attributes(pickle: &Pickle, state: Value) -> Option<Built<'static>> {
    let parts = match pickle.tuple(state) {
        Some(parts) => parts,
        None => std::slice::from_ref(&state),
    };
    let entries: Vec<_> = parts
        .iter()
        .take(2)
        .filter_map(|part| pickle.entries(*part))
        .collect();
    if entries.iter().any(|entries| entries.len() > MAX_ATTRIBUTES) {
        return Some(Built::Refused(
            "has more attributes than any tensor".to_owned(),
        ));
    }
    let names = entries.into_iter().flatten();
    let mut names = names.filter_map(|(name, _)| pickle.str(*name));
    let name = names.find(|name| VALUES.contains(name))?;
    Some(Built::Refused(format!(
        "has its `{name}` set after it is built, which is not done here"
    )))
}

/// A view into a storage, by the function that would make it.
fn plain<'a>(pickle: &'a Pickle, function: &str, arguments: &[Value]) -> Built<'a> {
    let [storage, offset, shape, strides, rest @ ..] = arguments else {
        return Built::Refused(format!("is built by {function}, and not a plain tensor"));
    };
    let tensor = |dtype| Tensor {
        storage: *storage,
        offset: *offset,
        shape: *shape,
        strides: *strides,
        dtype,
    };
    let (tensor, flags) = match (function, rest) {
        ("_rebuild_tensor", []) | ("_rebuild_tensor_v2", [] | [_] | [_, _]) => (tensor(None), None),
        ("_rebuild_tensor_v2", [_, _, flags]) => (tensor(None), Some(*flags)),
        ("_rebuild_tensor_v3", [_, _, dtype, flags @ ..]) if flags.len() <= 1 => {
            let Some(dtype) = pickle.global(*dtype) else {
                return Built::Refused("has a dtype without a name".to_owned());
            };
            (tensor(Some(dtype)), flags.first().copied())
        }
        _ => return Built::Refused(format!("is built by {function}, and not a plain tensor")),
    };
    match flags.and_then(|flags| flag(pickle, flags)) {
        None => Built::Tensor(tensor),
        Some(refused) => Built::Refused(refused),
    }
}

/// A bit that changes what the bytes mean.
fn flag(pickle: &Pickle, flags: Value) -> Option<String> {
    if flags == Value::None {
        return None;
    }
    let entries = pickle.entries(flags);
    let Some(entries) = entries.filter(|entries| entries.len() <= MAX_ATTRIBUTES) else {
        return Some("has metadata that is not understood here".to_owned());
    };
    let mut refused = entries.iter().filter_map(|(name, value)| {
        let name = pickle.str(*name);
        match (name, value) {
            (Some("neg" | "conj"), Value::Bool(false)) => None,
            (Some("neg"), _) => Some(
                "has its negative bit set, which is not undone here: call .resolve_neg() on it before saving".to_owned(),
            ),
            (Some("conj"), _) => Some(
                "has its conjugate bit set, which is not undone here: call .resolve_conj() on it before saving".to_owned(),
            ),
            (Some(name), _) => Some(format!("has `{name}` in its metadata, which is not understood here")),
            (None, _) => Some("has metadata that is not understood here".to_owned()),
        }
    });
    refused.next()
}

/// The class of a module that was pickled whole.
fn module<'a>(pickle: &'a Pickle, object: &Object) -> Option<&'a str> {
    let entries = pickle.entries(object.state?)?;
    let has = |wanted: &str| {
        let mut first = entries.iter().take(MAX_ATTRIBUTES);
        first.any(|(name, _)| pickle.str(*name) == Some(wanted))
    };
    (has("_parameters") && has("_modules")).then(|| pickle.class(object))?
}

/// The dtype that a storage's class or a dtype of PyTorch's stands for.
pub(super) fn dtype(name: &str) -> Option<Dtype> {
    let name = name.strip_prefix("torch.")?;
    let is_it = |dtype: &Dtype| name == torch_name(*dtype) || Some(name) == storage_of(*dtype);
    Dtype::KNOWN.into_iter().find(is_it)
}

/// What PyTorch calls a dtype.
fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "float64",
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
        Dtype::Bf16 => "bfloat16",
        Dtype::I64 => "int64",
        Dtype::I32 => "int32",
        Dtype::I16 => "int16",
        Dtype::I8 => "int8",
        Dtype::U64 => "uint64",
        Dtype::U32 => "uint32",
        Dtype::U16 => "uint16",
        Dtype::U8 => "uint8",
        Dtype::Bool => "bool",
    }
}

/// The class of the storages of a dtype. Dtypes newer than these classes have none: `_rebuild_tensor_v3` says theirs.
pub(super) fn storage_of(dtype: Dtype) -> Option<&'static str> {
    match dtype {
        Dtype::F64 => Some("DoubleStorage"),
        Dtype::F32 => Some("FloatStorage"),
        Dtype::F16 => Some("HalfStorage"),
        Dtype::Bf16 => Some("BFloat16Storage"),
        Dtype::I64 => Some("LongStorage"),
        Dtype::I32 => Some("IntStorage"),
        Dtype::I16 => Some("ShortStorage"),
        Dtype::I8 => Some("CharStorage"),
        Dtype::U8 => Some("ByteStorage"),
        Dtype::Bool => Some("BoolStorage"),
        Dtype::U64 | Dtype::U32 | Dtype::U16 => None,
    }
}

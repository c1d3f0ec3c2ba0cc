//! What a pickle describes, as data: nothing in it is imported, called or executed.

use std::fmt;

/// The place of a [`Node`] in its [`Pickle`]. Containers refer to their elements by it, so that an object that is memoised while
/// empty and filled later is one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id(pub u32);

/// A value: itself where it is a number, its place otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Bytes, a set, a text or a number that is too long to be kept: what optimizers and data loaders save, and no state dict
    /// needs.
    Opaque,
    Node(Id),
}

/// A value that is larger than a number.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Str(Box<str>),
    Tuple(Box<[Value]>),
    /// Those elements of a list that are no numbers, with their positions.
    List {
        length: usize,
        nodes: Vec<(usize, Id)>,
    },
    Dict(Vec<(Value, Value)>),
    /// `module.name`.
    Global(Box<str>),
    /// A persistent id: how PyTorch refers to a storage.
    Persistent(Value),
    Object(Box<Object>),
}

/// What a callable would make of its arguments, were it called, and what would be done to that.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    pub callable: Value,
    /// Positional arguments.
    pub arguments: Value,
    /// Whether there are arguments by name, too.
    pub has_keywords: bool,
    /// Items that are set on it, as on a dictionary.
    pub entries: Vec<(Value, Value)>,
    /// Elements appended to it that are no numbers, with their positions.
    pub nodes: Vec<(usize, Id)>,
    pub length: usize,
    /// The state that it is given.
    pub state: Option<Value>,
}

/// A parsed pickle: its nodes, and its result.
pub(super) struct Pickle {
    pub nodes: Vec<Node>,
    pub root: Value,
}

impl Pickle {
    pub fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(Id(at)) => Some(&self.nodes[at as usize]),
            _ => None,
        }
    }

    pub fn str(&self, value: Value) -> Option<&str> {
        match self.node(value)? {
            Node::Str(text) => Some(text),
            _ => None,
        }
    }

    pub fn global(&self, value: Value) -> Option<&str> {
        match self.node(value)? {
            Node::Global(name) => Some(name),
            _ => None,
        }
    }

    pub fn tuple(&self, value: Value) -> Option<&[Value]> {
        match self.node(value)? {
            Node::Tuple(items) => Some(items),
            _ => None,
        }
    }

    pub fn object(&self, value: Value) -> Option<&Object> {
        match self.node(value)? {
            Node::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The entries of a dictionary, or of what is one by what is done to it: `defaultdict`, or a class derived from `dict`.
    pub fn entries(&self, value: Value) -> Option<&[(Value, Value)]> {
        let object = match self.node(value)? {
            Node::Dict(entries) => return Some(entries),
            Node::Object(object) => object,
            _ => return None,
        };
        if !object.entries.is_empty() {
            return Some(&object.entries);
        }
        // How such a class is written before protocol 2, and a `Counter` always: with its entries as an argument.
        let entries = match (self.global(object.callable)?, self.tuple(object.arguments)?) {
            ("copyreg._reconstructor" | "copy_reg._reconstructor", [_, _, entries]) => *entries,
            ("collections.OrderedDict" | "collections.Counter", [entries]) => *entries,
            _ => return None,
        };
        match self.node(entries)? {
            Node::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// Those elements of a list, a tuple, or what is one by what is done to it, that are no numbers, with their positions.
    pub fn elements(&self, value: Value) -> impl Iterator<Item = (usize, Value)> {
        let (nodes, items): (&[(usize, Id)], &[Value]) = match self.node(value) {
            Some(Node::List { nodes, .. }) => (nodes, &[]),
            Some(Node::Object(object)) => (&object.nodes, &[]),
            Some(Node::Tuple(items)) => (&[], items),
            _ => (&[], &[]),
        };
        let nodes = nodes.iter().map(|&(at, id)| (at, Value::Node(id)));
        nodes.chain(items.iter().copied().enumerate())
    }

    /// The class of an object, by the name that the pickle has for it.
    pub fn class(&self, object: &Object) -> Option<&str> {
        match self.global(object.callable)? {
            "copyreg._reconstructor" | "copy_reg._reconstructor" => {
                self.global(*self.tuple(object.arguments)?.first()?)
            }
            class => Some(class),
        }
    }

    /// A key as it stands in a path.
    pub fn key(&self, key: Value) -> Option<Key<'_>> {
        match key {
            Value::Int(number) => Some(Key::Number(number)),
            _ => self.str(key).map(Key::Name),
        }
    }
}

/// A step on the way from a pickle's result to a value in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    Name(&'a str),
    Number(i64),
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Name(name) => f.write_str(name),
            Key::Number(number) => write!(f, "{number}"),
        }
    }
}

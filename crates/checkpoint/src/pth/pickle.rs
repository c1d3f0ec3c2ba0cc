//! The part of the pickle machine that state dicts need. Nothing is imported, called or executed:
//! globals are names, and a call is kept as a [`Value::Call`] for the reader to recognise or refuse.
//!
//! Opcodes as in CPython's `pickletools`; what `torch.save` writes is protocol 2.

use std::collections::HashMap;

/// A value takes more memory than the byte that makes it.
const MAX_VALUES: usize = 1_000_000;

/// The place of a value in [`Pickle`]. Containers refer to their elements by it, so that an object that
/// is memoised while empty and filled later is one object.
pub(super) type Id = usize;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    /// Bytes or a set: what optimizers and data loaders save, and no state dict needs.
    Opaque,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// `module.name`.
    Global(String),
    /// A persistent id: how PyTorch refers to a storage.
    Persistent(Id),
    /// A callable applied to a tuple of arguments, not executed.
    Call(Id, Id),
}

/// A parsed pickle: the values, and which of them is the result.
pub(super) struct Pickle {
    values: Vec<Value>,
    pub root: Id,
}

impl Pickle {
    pub fn parse(bytes: &[u8]) -> Result<Pickle, String> {
        Machine {
            input: bytes,
            position: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
        .run()
    }

    pub fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    pub fn str(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    pub fn int(&self, id: Id) -> Option<u64> {
        match self.get(id) {
            Value::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    pub fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The callable's name and the arguments.
    pub fn call(&self, id: Id) -> Option<(&str, &[Id])> {
        match self.get(id) {
            Value::Call(callable, arguments) => match self.get(*callable) {
                Value::Global(name) => Some((name, self.tuple(*arguments)?)),
                _ => None,
            },
            _ => None,
        }
    }
}

struct Machine<'a> {
    input: &'a [u8],
    position: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl Machine<'_> {
    fn run(mut self) -> Result<Pickle, String> {
        loop {
            let at = self.position;
            let [opcode] = self.take()?;
            match opcode {
                b'.' => {
                    let root = self.pop()?;
                    return Ok(Pickle {
                        values: self.values,
                        root,
                    });
                }
                0x80 => drop(self.take::<1>()?), // PROTO
                0x95 => drop(self.take::<8>()?), // FRAME
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_to_mark()?), // POP_MARK
                b'2' => {
                    let top = self.top()?; // DUP
                    self.stack.push(top);
                }
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'B' => self.opaque::<4>()?,        // BINBYTES
                b'C' | b'U' => self.opaque::<1>()?, // SHORT_BINBYTES, SHORT_BINSTRING
                b'T' => self.opaque::<4>()?,        // BINSTRING
                0x8e | 0x96 => self.opaque::<8>()?, // BINBYTES8, BYTEARRAY8
                0x8f => self.push(Value::Opaque)?,  // EMPTY_SET
                0x90 => drop(self.pop_to_mark()?),  // ADDITEMS
                0x91 => {
                    self.pop_to_mark()?; // FROZENSET
                    self.push(Value::Opaque)?;
                }
                b'K' => self.int::<1>(false)?,
                b'M' => self.int::<2>(false)?,
                b'J' => self.int::<4>(true)?,
                0x8a => self.long::<1>()?,
                0x8b => self.long::<4>()?,
                b'G' => {
                    let value = f64::from_be_bytes(self.take()?);
                    self.push(Value::Float(value))?;
                }
                b'X' => self.string::<4>()?, // BINUNICODE
                0x8c => self.string::<1>()?, // SHORT_BINUNICODE
                0x8d => self.string::<8>()?, // BINUNICODE8
                b')' => self.push(Value::Tuple(Vec::new()))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b']' => self.push(Value::List(Vec::new()))?,
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Tuple(items))?;
                }
                0x85..=0x87 => {
                    let count = opcode as usize - 0x84; // TUPLE1, TUPLE2, TUPLE3
                    let items = self.pop_many(count)?;
                    self.push(Value::Tuple(items))?;
                }
                b'q' => self.memoise::<1>()?,
                b'r' => self.memoise::<4>()?,
                0x94 => {
                    let next = self.memo.len() as u64; // MEMOIZE
                    let top = self.top()?;
                    self.memo.insert(next, top);
                }
                b'h' => self.recall::<1>()?,
                b'j' => self.recall::<4>()?,
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Value::Global(format!("{module}.{name}")))?;
                }
                0x93 => {
                    let items = self.pop_many(2)?; // STACK_GLOBAL
                    match (&self.values[items[0]], &self.values[items[1]]) {
                        (Value::Str(module), Value::Str(name)) => {
                            let name = format!("{module}.{name}");
                            self.push(Value::Global(name))?;
                        }
                        _ => return Err(format!("a global without a name at byte {at}")),
                    }
                }
                b'Q' => {
                    let id = self.pop()?; // BINPERSID
                    self.push(Value::Persistent(id))?;
                }
                b'R' | 0x81 => self.call()?, // REDUCE, NEWOBJ
                b'b' => drop(self.pop()?),   // BUILD: attributes, such as a state dict's _metadata
                b's' => {
                    let items = self.pop_many(2)?;
                    self.extend_dict(&items)?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.extend_dict(&items)?;
                }
                b'a' => {
                    let items = self.pop_many(1)?;
                    self.extend_list(items)?;
                }
                b'e' => {
                    let items = self.pop_to_mark()?;
                    self.extend_list(items)?;
                }
                other => {
                    return Err(format!(
                        "opcode 0x{other:02x} at byte {at}, which no state dict needs"
                    ));
                }
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.slice(N as u64)?;
        Ok(bytes.try_into().expect("the slice has N bytes"))
    }

    fn slice(&mut self, length: u64) -> Result<&[u8], String> {
        let rest = &self.input[self.position..];
        let Some(bytes) = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length))
        else {
            return Err("it ends in the middle of an instruction".to_owned());
        };
        self.position += bytes.len();
        Ok(bytes)
    }

    fn unsigned<const N: usize>(&mut self) -> Result<u64, String> {
        let bytes: [u8; N] = self.take()?;
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&bytes);
        Ok(u64::from_le_bytes(wide))
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.input[self.position..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or("a name without an end")?;
        let text = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.position += length + 1;
        Ok(text)
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if self.values.len() == MAX_VALUES {
            return Err(format!(
                "it has more than {MAX_VALUES} objects, which no state dict has"
            ));
        }
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    /// A length of `N` bytes, and so many bytes that nobody asks for.
    fn opaque<const N: usize>(&mut self) -> Result<(), String> {
        let length = self.unsigned::<N>()?;
        self.slice(length)?;
        self.push(Value::Opaque)
    }

    fn top(&self) -> Result<Id, String> {
        self.stack
            .last()
            .copied()
            .ok_or_else(|| "a value is missing".to_owned())
    }

    fn pop(&mut self) -> Result<Id, String> {
        self.stack
            .pop()
            .ok_or_else(|| "a value is missing".to_owned())
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let start = self.stack.len().checked_sub(count);
        Ok(self.stack.split_off(start.ok_or("a value is missing")?))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or("a mark is missing")?))
    }

    fn int<const N: usize>(&mut self, signed: bool) -> Result<(), String> {
        let value = self.unsigned::<N>()?;
        let value = if signed {
            value as u32 as i32 as i64
        } else {
            value as i64
        };
        self.push(Value::Int(value))
    }

    /// An integer of as many bytes as its first `N` say. One of more than eight, a random generator's, is opaque.
    fn long<const N: usize>(&mut self) -> Result<(), String> {
        let length = self.unsigned::<N>()?;
        let bytes = self.slice(length)?;
        let negative = bytes.last().is_some_and(|&byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        let Some(start) = wide.get_mut(..bytes.len()) else {
            return self.push(Value::Opaque);
        };
        start.copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn string<const N: usize>(&mut self) -> Result<(), String> {
        let length = self.unsigned::<N>()?;
        let text = String::from_utf8_lossy(self.slice(length)?).into_owned();
        self.push(Value::Str(text))
    }

    fn memoise<const N: usize>(&mut self) -> Result<(), String> {
        let key = self.unsigned::<N>()?;
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall<const N: usize>(&mut self) -> Result<(), String> {
        let key = self.unsigned::<N>()?;
        let id = self.memo.get(&key);
        self.stack
            .push(*id.ok_or("it refers to a value that was never given")?);
        Ok(())
    }

    fn call(&mut self) -> Result<(), String> {
        let items = self.pop_many(2)?;
        let is_ordered_dict = matches!(&self.values[items[0]], Value::Global(name) if name == "collections.OrderedDict");
        let without_arguments =
            matches!(&self.values[items[1]], Value::Tuple(items) if items.is_empty());
        self.push(if is_ordered_dict && without_arguments {
            Value::Dict(Vec::new())
        } else {
            Value::Call(items[0], items[1])
        })
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::Dict(entries) => {
                entries.extend(
                    items
                        .as_chunks::<2>()
                        .0
                        .iter()
                        .map(|&[key, value]| (key, value)),
                );
                Ok(())
            }
            _ => Err("items are set on what is no dictionary".to_owned()),
        }
    }

    fn extend_list(&mut self, mut items: Vec<Id>) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::List(list) => {
                list.append(&mut items);
                Ok(())
            }
            _ => Err("items are appended to what is no list".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_pickle_is_an_error_at_every_length() {
        let whole = b"\x80\x02ccollections\nOrderedDict\n)Rq\x00(X\x01\x00\x00\x00aK\x05u.";
        assert!(Pickle::parse(whole).is_ok());
        for length in 0..whole.len() {
            assert!(Pickle::parse(&whole[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_dictionary_memoised_while_empty_is_the_one_that_is_filled() {
        let pickle = Pickle::parse(b"\x80\x02}q\x00X\x01\x00\x00\x00aK\x05s0h\x00.").unwrap();
        let Value::Dict(entries) = pickle.get(pickle.root) else {
            panic!("not a dictionary");
        };
        assert_eq!(pickle.str(entries[0].0), Some("a"));
        assert_eq!(pickle.int(entries[0].1), Some(5));
    }

    #[test]
    fn calls_are_kept_and_not_executed() {
        let pickle = Pickle::parse(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").unwrap();
        let (name, arguments) = pickle.call(pickle.root).unwrap();
        assert_eq!((name, pickle.str(arguments[0])), ("os.system", Some("ls")));
    }
}

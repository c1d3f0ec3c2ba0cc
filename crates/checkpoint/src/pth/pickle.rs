//! The pickle machine, as far as describing goes: nothing is imported, called or executed. Globals are names, and a call is kept
//! as an [`Object`] for the reader to recognise or refuse.
//!
//! Opcodes as in CPython's `pickletools`, of every protocol; what `torch.save` writes is protocol 2. The pickle is read as a
//! stream: of what no state dict needs (long bytes and texts, numbers in lists), nothing is kept.

use std::collections::HashMap;
use std::io::BufRead;

use super::input::Input;
use super::value::{Id, Node, Object, Pickle, Value};

/// What is kept of a pickle takes at most about twice this.
const MAX_KEPT_BYTES: usize = 128 << 20;
/// Values that wait for what is made of them: as many as the largest tuple has elements.
const MAX_STACK: usize = 4 << 20;
/// A text of more bytes is the name of nothing.
const MAX_TEXT_BYTES: u64 = 64 << 10;

const NODE_BYTES: usize = size_of::<Node>();
const VALUE_BYTES: usize = size_of::<Value>();
const OBJECT_BYTES: usize = size_of::<Object>();
const ENTRY_BYTES: usize = 2 * VALUE_BYTES;
/// An entry of the memo, with what a hash table keeps free.
const MEMO_BYTES: usize = 2 * (size_of::<u64>() + VALUE_BYTES);

impl Pickle {
    /// Reads a pickle, and no byte behind it.
    pub fn parse(input: impl BufRead) -> Result<Pickle, String> {
        Machine {
            input: Input::new(input),
            kept: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
        .run()
    }
}

struct Machine<R> {
    input: Input<R>,
    kept: usize,
    nodes: Vec<Node>,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
}

impl<R: BufRead> Machine<R> {
    fn run(mut self) -> Result<Pickle, String> {
        loop {
            let at = self.input.position();
            let [opcode] = self.input.take()?;
            match opcode {
                b'.' => {
                    let root = self.pop()?;
                    return Ok(Pickle {
                        nodes: self.nodes,
                        root,
                    });
                }
                0x80 => drop(self.input.take::<1>()?), // PROTO
                0x95 => drop(self.input.take::<8>()?), // FRAME
                b'(' => self.mark()?,
                b'0' => self.pop_or_unmark()?,
                b'1' => drop(self.pop_to_mark()?), // POP_MARK
                b'2' => {
                    let top = self.top()?; // DUP
                    self.push(top)?;
                }

                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'K' => self.int::<1>()?,
                b'M' => self.int::<2>()?,
                b'J' => {
                    let value = i32::from_le_bytes(self.input.take()?);
                    self.push(Value::Int(value.into()))?;
                }
                0x8a => self.long::<1>()?,
                0x8b => self.long::<4>()?,
                b'G' => {
                    let value = f64::from_be_bytes(self.input.take()?);
                    self.push(Value::Float(value))?;
                }
                b'I' | b'L' => self.int_line()?,
                b'F' => {
                    let line = self.input.line()?;
                    let value = line.parse().map_or(Value::Opaque, Value::Float);
                    self.push(value)?;
                }

                b'X' => self.text::<4>()?,          // BINUNICODE
                0x8c => self.text::<1>()?,          // SHORT_BINUNICODE
                0x8d => self.text::<8>()?,          // BINUNICODE8
                b'U' => self.text::<1>()?,          // SHORT_BINSTRING: a text of Python 2
                b'T' => self.text::<4>()?,          // BINSTRING
                b'B' => self.opaque::<4>()?,        // BINBYTES
                b'C' => self.opaque::<1>()?,        // SHORT_BINBYTES
                0x8e | 0x96 => self.opaque::<8>()?, // BINBYTES8, BYTEARRAY8
                b'S' => {
                    let line = self.input.line()?;
                    self.text_line(line.trim_matches(['\'', '"']))?;
                }
                b'V' => {
                    let line = self.input.line()?;
                    self.text_line(&line)?;
                }

                b')' => self.push_node(Node::Tuple(Box::default()))?,
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.tuple(items)?;
                }
                0x85..=0x87 => {
                    let count = opcode as usize - 0x84; // TUPLE1, TUPLE2, TUPLE3
                    let items = self.pop_many(count)?;
                    self.tuple(items)?;
                }
                b'}' => self.push_node(Node::Dict(Vec::new()))?,
                b'd' => {
                    let items = self.pop_to_mark()?;
                    self.push_node(Node::Dict(Vec::new()))?;
                    self.extend_dict(&items)?;
                }
                b's' => {
                    let items = self.pop_many(2)?;
                    self.extend_dict(&items)?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.extend_dict(&items)?;
                }
                b']' => self.push_list()?,
                b'l' => {
                    let items = self.pop_to_mark()?;
                    self.push_list()?;
                    self.extend_list(&items)?;
                }
                b'a' => {
                    let items = self.pop_many(1)?;
                    self.extend_list(&items)?;
                }
                b'e' => {
                    let items = self.pop_to_mark()?;
                    self.extend_list(&items)?;
                }
                0x8f => self.push(Value::Opaque)?, // EMPTY_SET
                0x90 => drop(self.pop_to_mark()?), // ADDITEMS
                0x91 => {
                    self.pop_to_mark()?; // FROZENSET
                    self.push(Value::Opaque)?;
                }

                b'p' => {
                    let key = self.number_line()?; // PUT
                    self.memoise(key)?;
                }
                b'q' => {
                    let [key] = self.input.take()?; // BINPUT
                    self.memoise(key.into())?;
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.input.take()?); // LONG_BINPUT
                    self.memoise(key.into())?;
                }
                0x94 => {
                    let next = self.memo.len() as u64; // MEMOIZE
                    self.memoise(next)?;
                }
                b'g' => {
                    let key = self.number_line()?; // GET
                    self.recall(key)?;
                }
                b'h' => {
                    let [key] = self.input.take()?; // BINGET
                    self.recall(key.into())?;
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.input.take()?); // LONG_BINGET
                    self.recall(key.into())?;
                }

                b'c' => {
                    let name = self.global()?;
                    self.push_node(name)?;
                }
                0x93 => {
                    let items = self.pop_many(2)?; // STACK_GLOBAL
                    let name = match (self.str(items[0]), self.str(items[1])) {
                        (Some(module), Some(name)) => format!("{module}.{name}"),
                        _ => return Err(format!("a global without a name at byte {at}")),
                    };
                    self.keep(name.len())?;
                    self.push_node(Node::Global(name.into()))?;
                }
                // EXT1, EXT2, EXT4: globals by numbers, which are agreed upon elsewhere.
                0x82..=0x84 => {
                    self.input.skip(1 << (opcode - 0x82))?;
                    self.push(Value::Opaque)?;
                }
                b'Q' => {
                    let id = self.pop()?; // BINPERSID
                    self.push_node(Node::Persistent(id))?;
                }
                b'P' => {
                    let line = self.input.line()?; // PERSID
                    self.text_line(&line)?;
                    let id = self.pop()?;
                    self.push_node(Node::Persistent(id))?;
                }

                b'R' | 0x81 => {
                    let items = self.pop_many(2)?; // REDUCE, NEWOBJ
                    self.call(items[0], items[1], false)?;
                }
                0x92 => {
                    let items = self.pop_many(3)?; // NEWOBJ_EX
                    self.call(items[0], items[1], true)?;
                }
                b'i' => {
                    let items = self.pop_to_mark()?; // INST
                    let name = self.global()?;
                    self.push_node(name)?;
                    let callable = self.pop()?;
                    self.tuple(items)?;
                    let arguments = self.pop()?;
                    self.call(callable, arguments, false)?;
                }
                b'o' => {
                    let mut items = self.pop_to_mark()?; // OBJ
                    if items.is_empty() {
                        return Err(format!("an object without a class at byte {at}"));
                    }
                    let callable = items.remove(0);
                    self.tuple(items)?;
                    let arguments = self.pop()?;
                    self.call(callable, arguments, false)?;
                }
                b'b' => {
                    let state = self.pop()?; // BUILD
                    // Of a dictionary: attributes, such as a state dict's _metadata.
                    if let Some(Node::Object(object)) = self.top_node()? {
                        object.state = Some(state);
                    }
                }
                0x97 => self.push(Value::Opaque)?, // NEXT_BUFFER
                0x98 => {}                         // READONLY_BUFFER
                other => {
                    return Err(format!(
                        "opcode 0x{other:02x} at byte {at}, which no pickle has"
                    ));
                }
            }
        }
    }

    /// Accounts for memory that is taken for good.
    fn keep(&mut self, bytes: usize) -> Result<(), String> {
        self.kept += bytes;
        match self.kept <= MAX_KEPT_BYTES {
            true => Ok(()),
            false => Err(format!(
                "it describes more objects than fit into {} MiB: save the weights without the logs and data beside them, with \
                 torch.save(model.state_dict(), path)",
                (2 * MAX_KEPT_BYTES) >> 20
            )),
        }
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if self.stack.len() == MAX_STACK {
            return Err(format!(
                "more than {MAX_STACK} values wait in it for what is made of them, which is so in no checkpoint"
            ));
        }
        self.stack.push(value);
        Ok(())
    }

    fn push_node(&mut self, node: Node) -> Result<(), String> {
        self.keep(NODE_BYTES)?;
        let id = Id(self.nodes.len() as u32);
        self.push(Value::Node(id))?;
        self.nodes.push(node);
        Ok(())
    }

    fn str(&self, value: Value) -> Option<&str> {
        match value {
            Value::Node(Id(at)) => match &self.nodes[at as usize] {
                Node::Str(text) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// A length of `N` bytes, and so many bytes that nobody asks for.
    fn opaque<const N: usize>(&mut self) -> Result<(), String> {
        let length = self.input.unsigned::<N>()?;
        self.input.skip(length)?;
        self.push(Value::Opaque)
    }

    fn mark(&mut self) -> Result<(), String> {
        if self.marks.len() == MAX_STACK {
            return Err("it is nested more deeply than any checkpoint".to_owned());
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn top(&self) -> Result<Value, String> {
        self.stack.last().copied().ok_or_else(missing)
    }

    fn top_node(&mut self) -> Result<Option<&mut Node>, String> {
        Ok(match self.top()? {
            Value::Node(Id(at)) => Some(&mut self.nodes[at as usize]),
            _ => None,
        })
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.stack.pop().ok_or_else(missing)
    }

    /// POP takes a mark away where one is on top.
    fn pop_or_unmark(&mut self) -> Result<(), String> {
        match self.marks.last() == Some(&self.stack.len()) {
            true => drop(self.marks.pop()),
            false => drop(self.pop()?),
        }
        Ok(())
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Value>, String> {
        let start = self.stack.len().checked_sub(count);
        Ok(self.stack.drain(start.ok_or_else(missing)?..).collect())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        let mark = mark.ok_or("a mark is missing")?;
        Ok(self.stack.drain(mark..).collect())
    }

    fn int<const N: usize>(&mut self) -> Result<(), String> {
        let value = self.input.unsigned::<N>()?;
        self.push(Value::Int(value as i64))
    }

    /// An integer of as many bytes as its first `N` say. One of more than eight, a random generator's, is opaque.
    fn long<const N: usize>(&mut self) -> Result<(), String> {
        let length = self.input.unsigned::<N>()?;
        if length > 8 {
            self.input.skip(length)?;
            return self.push(Value::Opaque);
        }
        let mut bytes = [0; 8];
        let length = length as usize;
        self.input.fill(&mut bytes[..length])?;
        if length > 0 && bytes[length - 1] & 0x80 != 0 {
            bytes[length..].fill(0xff);
        }
        self.push(Value::Int(i64::from_le_bytes(bytes)))
    }

    /// A number in digits, or what stood for a bool before protocol 2.
    fn int_line(&mut self) -> Result<(), String> {
        let line = self.input.line()?;
        let value = match &*line {
            "00" => Value::Bool(false),
            "01" => Value::Bool(true),
            digits => {
                let digits = digits.trim_end_matches('L');
                digits.parse().map_or(Value::Opaque, Value::Int)
            }
        };
        self.push(value)
    }

    fn number_line(&mut self) -> Result<u64, String> {
        let line = self.input.line()?;
        line.parse()
            .map_err(|_| format!("`{line}` stands where a number should"))
    }

    /// A length of `N` bytes, and a text: a name, where it is no longer than any.
    fn text<const N: usize>(&mut self) -> Result<(), String> {
        let length = self.input.unsigned::<N>()?;
        if length > MAX_TEXT_BYTES {
            self.input.skip(length)?;
            return self.push(Value::Opaque);
        }
        let mut bytes = vec![0; length as usize];
        self.input.fill(&mut bytes)?;
        self.keep(bytes.len())?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.push_node(Node::Str(text.into()))
    }

    /// A text in a line, where what is escaped in it is of no interest.
    fn text_line(&mut self, text: &str) -> Result<(), String> {
        if text.contains('\\') {
            return self.push(Value::Opaque);
        }
        self.keep(text.len())?;
        self.push_node(Node::Str(text.into()))
    }

    fn global(&mut self) -> Result<Node, String> {
        let (module, name) = (self.input.line()?, self.input.line()?);
        let name = format!("{module}.{name}");
        self.keep(name.len())?;
        Ok(Node::Global(name.into()))
    }

    fn tuple(&mut self, items: Vec<Value>) -> Result<(), String> {
        self.keep(items.len() * VALUE_BYTES)?;
        self.push_node(Node::Tuple(items.into()))
    }

    fn push_list(&mut self) -> Result<(), String> {
        self.push_node(Node::List {
            length: 0,
            nodes: Vec::new(),
        })
    }

    fn memoise(&mut self, key: u64) -> Result<(), String> {
        let top = self.top()?;
        if self.memo.insert(key, top).is_none() {
            self.keep(MEMO_BYTES)?;
        }
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<(), String> {
        let value = self.memo.get(&key);
        let value = *value.ok_or("it refers to a value that was never given")?;
        self.push(value)
    }

    fn call(
        &mut self,
        callable: Value,
        arguments: Value,
        has_keywords: bool,
    ) -> Result<(), String> {
        let node = |value| match value {
            Value::Node(Id(at)) => Some(&self.nodes[at as usize]),
            _ => None,
        };
        let is_ordered_dict = matches!(node(callable), Some(Node::Global(name)) if &**name == "collections.OrderedDict");
        let without_arguments =
            matches!(node(arguments), Some(Node::Tuple(items)) if items.is_empty());
        if is_ordered_dict && without_arguments && !has_keywords {
            return self.push_node(Node::Dict(Vec::new()));
        }
        self.keep(OBJECT_BYTES)?;
        self.push_node(Node::Object(Box::new(Object {
            callable,
            arguments,
            has_keywords,
            entries: Vec::new(),
            nodes: Vec::new(),
            length: 0,
            state: None,
        })))
    }

    /// Sets items on a dictionary, or on an object, which may be one.
    fn extend_dict(&mut self, items: &[Value]) -> Result<(), String> {
        self.keep(items.len() / 2 * ENTRY_BYTES)?;
        let entries = match self.top_node()? {
            Some(Node::Dict(entries)) => entries,
            Some(Node::Object(object)) => &mut object.entries,
            _ => return Err("items are set on what is no dictionary".to_owned()),
        };
        let (pairs, _) = items.as_chunks::<2>();
        entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    /// Appends to a list, or to an object, which may be one.
    fn extend_list(&mut self, items: &[Value]) -> Result<(), String> {
        let is_node = |item: &&Value| matches!(item, Value::Node(_));
        let kept = items.iter().filter(is_node).count();
        self.keep(kept * VALUE_BYTES)?;
        let (length, nodes) = match self.top_node()? {
            Some(Node::List { length, nodes }) => (length, nodes),
            Some(Node::Object(object)) => (&mut object.length, &mut object.nodes),
            _ => return Err("items are appended to what is no list".to_owned()),
        };
        let numbered = (*length..).zip(items);
        nodes.extend(numbered.filter_map(|(at, item)| match item {
            Value::Node(id) => Some((at, *id)),
            _ => None,
        }));
        *length += items.len();
        Ok(())
    }
}

fn missing() -> String {
    "a value is missing".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_pickle_is_an_error_at_every_length() {
        let whole = b"\x80\x02ccollections\nOrderedDict\n)Rq\x00(X\x01\x00\x00\x00aK\x05u.";
        assert!(Pickle::parse(&whole[..]).is_ok());
        for length in 0..whole.len() {
            assert!(Pickle::parse(&whole[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_dictionary_memoised_while_empty_is_the_one_that_is_filled() {
        let pickle = Pickle::parse(&b"\x80\x02}q\x00X\x01\x00\x00\x00aK\x05s0h\x00."[..]).unwrap();
        let entries = pickle.entries(pickle.root).unwrap();
        assert_eq!(pickle.str(entries[0].0), Some("a"));
        assert_eq!(entries[0].1, Value::Int(5));
    }

    #[test]
    fn calls_are_kept_and_not_executed() {
        let pickle = Pickle::parse(&b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."[..]).unwrap();
        let call = pickle.object(pickle.root).unwrap();
        let arguments = pickle.tuple(call.arguments).unwrap();
        assert_eq!(pickle.global(call.callable), Some("os.system"));
        assert_eq!(pickle.str(arguments[0]), Some("ls"));
    }

    #[test]
    fn items_set_on_an_object_are_those_of_a_dictionary() {
        // defaultdict(None), {"a": 5}
        let text = b"\x80\x02ccollections\ndefaultdict\nN\x85R(X\x01\x00\x00\x00aK\x05u.";
        let pickle = Pickle::parse(&text[..]).unwrap();
        let entries = pickle.entries(pickle.root).unwrap();
        assert_eq!(
            (pickle.str(entries[0].0), entries[0].1),
            (Some("a"), Value::Int(5))
        );
    }

    #[test]
    fn numbers_have_the_values_that_python_gave_them_in_every_protocol() {
        let int = |text: &[u8]| Pickle::parse(text).unwrap().root;
        for (text, expected) in [
            (&b"J\xff\xff\xff\xff."[..], Value::Int(-1)),
            (b"M\xff\xff.", Value::Int(65535)),
            (b"\x8a\x00.", Value::Int(0)),
            (b"\x8a\x01\xff.", Value::Int(-1)),
            (b"\x8a\x02\xff\x00.", Value::Int(255)),
            (b"I-7\n.", Value::Int(-7)),
            (b"I01\n.", Value::Bool(true)),
            (b"L12345678901L\n.", Value::Int(12_345_678_901)),
            (b"F1.5\n.", Value::Float(1.5)),
        ] {
            assert_eq!(int(text), expected);
        }
        let long = [&b"\x8a\x09"[..], &[1; 9], b"."].concat();
        assert_eq!(int(&long), Value::Opaque);
    }

    #[test]
    fn a_list_of_a_million_numbers_takes_no_memory_of_its_own() {
        let mut text = b"\x80\x02](".to_vec();
        (0..1_000_000).for_each(|_| text.extend(b"G\x3f\xf0\x00\x00\x00\x00\x00\x00"));
        text.extend(b"e.");
        let pickle = Pickle::parse(&text[..]).unwrap();
        let Some(Node::List { length, nodes }) = pickle.node(pickle.root) else {
            panic!("no list");
        };
        assert_eq!((*length, nodes.capacity()), (1_000_000, 0));
    }
}

//! Streams and events. A copy is made at the call, or at the latest moment that CUDA allows: when somebody waits for it, or for
//! what comes behind it.

use std::collections::{BTreeMap, VecDeque};

use crate::memory::Memory;
use crate::{Code, INVALID_HANDLE, SUCCESS};

/// A side of a copy.
#[derive(Clone, Copy)]
pub enum Side {
    Host(usize),
    Device(u64),
}

/// Rows of bytes from one side to the other.
#[derive(Clone, Copy)]
pub struct Copy {
    pub from: Side,
    pub to: Side,
    pub width: usize,
    pub height: usize,
    pub from_pitch: usize,
    pub to_pitch: usize,
}

impl Copy {
    pub fn flat(from: Side, to: Side, bytes: usize) -> Copy {
        Copy {
            from,
            to,
            width: bytes,
            height: usize::from(bytes > 0),
            from_pitch: bytes,
            to_pitch: bytes,
        }
    }

    /// Whether it uses this page-locked allocation.
    fn uses(&self, memory: &Memory, locked: usize) -> bool {
        [self.from, self.to].iter().any(|side| match side {
            Side::Host(address) => memory.locked_around(*address) == Some(locked),
            Side::Device(_) => false,
        })
    }

    fn make(&self, memory: &Memory) -> Result<(), Code> {
        // Rows without gaps are one.
        let (height, width) = match self.from_pitch == self.width && self.to_pitch == self.width {
            true => (1, self.width * self.height),
            false => (self.height, self.width),
        };
        if width == 0 {
            return Ok(());
        }
        let mut between = Vec::new();
        for row in 0..height {
            let from = self.from.behind(row * self.from_pitch);
            let to = self.to.behind(row * self.to_pitch);
            match (from, to) {
                (Side::Host(from), Side::Device(to)) => {
                    let from = std::ptr::with_exposed_provenance::<u8>(from);
                    // SAFETY: who asked for the copy promised that it can be read until the copy is waited for.
                    let bytes = unsafe { std::slice::from_raw_parts(from, width) };
                    memory.write(to, bytes)?;
                }
                (Side::Device(from), Side::Host(to)) => {
                    let to = std::ptr::with_exposed_provenance_mut::<u8>(to);
                    // SAFETY: as above, of writing; what is written over are bytes, whatever they are.
                    let bytes = unsafe { std::slice::from_raw_parts_mut(to, width) };
                    memory.read(from, bytes)?;
                }
                (Side::Device(from), Side::Device(to)) => {
                    between.resize(width, 0);
                    memory.read(from, &mut between)?;
                    memory.write(to, &between)?;
                }
                (Side::Host(from), Side::Host(to)) => {
                    let from = std::ptr::with_exposed_provenance::<u8>(from);
                    let to = std::ptr::with_exposed_provenance_mut::<u8>(to);
                    // SAFETY: as above, of both.
                    unsafe { std::ptr::copy(from, to, width) };
                }
            }
        }
        Ok(())
    }
}

impl Side {
    fn behind(self, bytes: usize) -> Side {
        match self {
            Side::Host(address) => Side::Host(address + bytes),
            Side::Device(address) => Side::Device(address + bytes as u64),
        }
    }
}

/// What a stream does, in order.
#[derive(Clone, Copy)]
pub enum Task {
    Copy(Copy),
    Free(u64),
    /// Nothing but its place in the order: a kernel, or an event's mark.
    Mark,
    /// Waits for a place in another stream.
    Wait(Place),
}

/// A place in a stream: behind this many of its tasks.
#[derive(Clone, Copy)]
pub struct Place {
    stream: u64,
    tasks: u64,
}

#[derive(Default)]
struct Stream {
    waiting: VecDeque<Task>,
    done: u64,
}

pub struct Work {
    is_late: bool,
    streams: BTreeMap<u64, Stream>,
    /// Where events were recorded last.
    events: BTreeMap<u64, Option<Place>>,
    next: u64,
}

/// The stream that is always there.
const DEFAULT_STREAM: u64 = 0;

impl Work {
    pub fn new(is_late: bool) -> Work {
        Work {
            is_late,
            streams: [(DEFAULT_STREAM, Stream::default())].into(),
            events: BTreeMap::new(),
            next: 0x1000,
        }
    }

    fn handle(&mut self) -> u64 {
        self.next += 0x10;
        self.next
    }

    pub fn create_stream(&mut self) -> u64 {
        let handle = self.handle();
        self.streams.insert(handle, Stream::default());
        handle
    }

    pub fn create_event(&mut self) -> u64 {
        let handle = self.handle();
        self.events.insert(handle, None);
        handle
    }

    pub fn destroy_event(&mut self, event: u64) -> Code {
        self.events
            .remove(&event)
            .map_or(INVALID_HANDLE, |_| SUCCESS)
    }

    /// Gives a stream something to do.
    pub fn submit(&mut self, stream: u64, task: Task, memory: &mut Memory) -> Result<(), Code> {
        let own = self.streams.get_mut(&stream).ok_or(INVALID_HANDLE)?;
        own.waiting.push_back(task);
        match self.is_late {
            true => Ok(()),
            false => self.finish_stream(stream, memory),
        }
    }

    pub fn record(&mut self, event: u64, stream: u64, memory: &mut Memory) -> Result<(), Code> {
        if !self.events.contains_key(&event) {
            return Err(INVALID_HANDLE);
        }
        self.submit(stream, Task::Mark, memory)?;
        let own = &self.streams[&stream];
        let tasks = own.done + own.waiting.len() as u64;
        self.events.insert(event, Some(Place { stream, tasks }));
        Ok(())
    }

    pub fn wait_event(&mut self, stream: u64, event: u64, memory: &mut Memory) -> Result<(), Code> {
        match self.events.get(&event).ok_or(INVALID_HANDLE)? {
            // What was never recorded is over.
            None => Ok(()),
            Some(place) => self.submit(stream, Task::Wait(*place), memory),
        }
    }

    /// Whether what comes before an event's record is done.
    pub fn is_over(&self, event: u64) -> Result<bool, Code> {
        let place = self.events.get(&event).ok_or(INVALID_HANDLE)?;
        Ok(place.is_none_or(|place| self.streams[&place.stream].done >= place.tasks))
    }

    pub fn finish_event(&mut self, event: u64, memory: &mut Memory) -> Result<(), Code> {
        match self.events.get(&event).ok_or(INVALID_HANDLE)? {
            None => Ok(()),
            Some(place) => self.finish(*place, memory),
        }
    }

    pub fn finish_stream(&mut self, stream: u64, memory: &mut Memory) -> Result<(), Code> {
        let own = self.streams.get(&stream).ok_or(INVALID_HANDLE)?;
        let tasks = own.done + own.waiting.len() as u64;
        self.finish(Place { stream, tasks }, memory)
    }

    pub fn finish_all(&mut self, memory: &mut Memory) -> Result<(), Code> {
        let streams: Vec<u64> = self.streams.keys().copied().collect();
        let mut first = Ok(());
        for stream in streams {
            first = first.and(self.finish_stream(stream, memory));
        }
        first
    }

    fn finish(&mut self, until: Place, memory: &mut Memory) -> Result<(), Code> {
        loop {
            let Some(own) = self.streams.get_mut(&until.stream) else {
                return Ok(());
            };
            if own.done >= until.tasks {
                return Ok(());
            }
            let Some(task) = own.waiting.pop_front() else {
                return Ok(());
            };
            own.done += 1;
            match task {
                Task::Mark => {}
                Task::Copy(copy) => copy.make(memory)?,
                Task::Free(address) => memory.free(address)?,
                Task::Wait(place) => self.finish(place, memory)?,
            }
        }
    }

    /// How many copies from or to this page-locked allocation are still to be made.
    pub fn copies_with(&self, locked: usize, memory: &Memory) -> usize {
        let tasks = self.streams.values().flat_map(|stream| &stream.waiting);
        let copies = tasks.filter(|task| match task {
            Task::Copy(copy) => copy.uses(memory, locked),
            _ => false,
        });
        copies.count()
    }
}

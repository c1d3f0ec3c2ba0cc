//! The nth call of a kind that fails, sticks or hangs.
//!
//! `alloc:3` lets the third allocation fail, `alloc:1:sticks` every call from the first allocation on, `sync:2:hangs` never returns
//! from the second wait. CUDA's documentation says of errors that come while the device works that they stick; a program should not
//! rest on it.

use std::collections::HashMap;

use crate::{Code, LAUNCH_FAILED, OUT_OF_MEMORY, UNSUPPORTED_PTX_VERSION};

/// What a program asks a driver for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Device memory.
    Alloc,
    /// Page-locked memory.
    Lock,
    /// A copy.
    Copy,
    /// A kernel.
    Launch,
    /// To wait.
    Sync,
    /// To load a program.
    Load,
}

impl Call {
    fn parse(text: &str) -> Option<Call> {
        Some(match text {
            "alloc" => Call::Alloc,
            "lock" => Call::Lock,
            "copy" => Call::Copy,
            "launch" => Call::Launch,
            "sync" => Call::Sync,
            "load" => Call::Load,
            _ => return None,
        })
    }

    fn code(self) -> Code {
        match self {
            Call::Alloc | Call::Lock => OUT_OF_MEMORY,
            Call::Load => UNSUPPORTED_PTX_VERSION,
            Call::Copy | Call::Launch | Call::Sync => LAUNCH_FAILED,
        }
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Fails,
    Sticks,
    Hangs,
}

#[derive(Debug, Clone, Copy)]
pub struct Fault {
    call: Call,
    nth: u64,
    end: End,
}

impl Fault {
    pub fn parse(text: &str) -> Option<Fault> {
        let mut words = text.split(':');
        let call = Call::parse(words.next()?)?;
        let nth = words.next()?.parse().ok().filter(|&nth| nth > 0)?;
        let end = match words.next() {
            None => End::Fails,
            Some("sticks") => End::Sticks,
            Some("hangs") => End::Hangs,
            Some(_) => return None,
        };
        words.next().is_none().then_some(Fault { call, nth, end })
    }
}

pub struct Faults {
    planned: Vec<Fault>,
    seen: HashMap<Call, u64>,
    /// The error that every call returns from now on.
    stuck: Option<Code>,
}

/// What a call is to do.
pub enum Verdict {
    GoOn,
    Fail(Code),
    Hang,
}

impl Faults {
    pub fn new(planned: &[Fault]) -> Faults {
        Faults {
            planned: planned.to_vec(),
            seen: HashMap::new(),
            stuck: None,
        }
    }

    /// One more of these calls.
    pub fn meet(&mut self, call: Call) -> Verdict {
        let seen = self.seen.entry(call).or_default();
        *seen += 1;
        let seen = *seen;
        if let Some(code) = self.stuck {
            return Verdict::Fail(code);
        }
        let is_meant = |fault: &&Fault| fault.call == call && fault.nth == seen;
        match self.planned.iter().find(is_meant).map(|fault| fault.end) {
            None => Verdict::GoOn,
            Some(End::Fails) => Verdict::Fail(call.code()),
            Some(End::Sticks) => {
                self.stick(call.code());
                Verdict::Fail(call.code())
            }
            Some(End::Hangs) => Verdict::Hang,
        }
    }

    /// An error after which a context is of no use, as CUDA's documentation says of those that come while the device works.
    pub fn stick(&mut self, code: Code) {
        self.stuck.get_or_insert(code);
    }

    pub fn stuck(&self) -> Option<Code> {
        self.stuck
    }
}

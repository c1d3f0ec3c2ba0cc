//! What a loading experiment is written against, and the worker that measures it.
//!
//! ```text
//!  Experiment ──declares── name, summary, what it reads, its memory contract
//!      │
//!      └─load(&Run<B>)─▶ Gpt2<B>          Run: device, dtype, checkpoint, reads, uploads, phases
//!                                          meter::Recorder: what was held while it loaded
//!  worker::execute(RunSpec) ─▶ Outcome    one run, in a process of its own: open the device, warm up,
//!        │                                 set host cap and cache state, load, read the marks, verify
//!        └─▶ meter::LastWords                    what it is doing, on disk, should it be ended
//! ```
//!
//! No byte is moved here: that is the library's, `featherweight`. [`Run::load`] is the library's one call, [`Run::place`] and the
//! other methods its steps.
//!
//! An experiment is generic over [`Platform`], a Burn backend with what Burn does not forward: the
//! memory in use on the device, its limits, and a read-back in pieces. Flex is always there, because
//! host memory always is; `vulkan` and `cuda` are features. Forward and verification are compiled here,
//! once per backend, so that an edited experiment does not pay for them.
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

pub mod columns;
pub mod convert;
mod devices;
mod error;
mod experiment;
mod finite;
mod measures;
mod observed;
mod optimizer_state;
mod outcome;
mod platform;
pub mod quantise;
mod reference;
mod run;
mod spoiling;
mod tuning;
mod usage;
mod verify;
pub mod worker;

pub use columns::{Cell, Column, How, Unit, visible};
pub use devices::{
    BackendKind, DeviceReport, DeviceSpec, SIMULATED, SOFTWARE_VULKAN, find_devices,
    offer_cuda_toolkit,
};
pub use error::Error;
pub use experiment::{
    Contract, Experiment, Footprint, Kept, MemoryModel, Reads, Registered, Target, Variant,
};
pub use measures::Measures;
pub use meter::Phase;
pub use optimizer_state::is_optimizer_state;
pub use outcome::{Compared, Logits, Outcome, Status, VerifiedBy};
pub use platform::{Host, Platform};
pub use reference::{
    REFERENCE_TOKENS, check_comparable, check_logits, logits_error, logits_tolerance, read_logits,
    write_logits,
};
pub use run::{Run, read_model};
pub use spoiling::{Quantity, SPOILING_SHARE, Spoiling};
pub use tuning::{Tunable, Tuned, Tuning};
pub use usage::{FineTuning, Saving, Task, Tell, Told};
pub use worker::RunSpec;

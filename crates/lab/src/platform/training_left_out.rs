//! In the place of `training`, in a program that was built without it.

use gpt2::Gpt2;

use super::Platform;
use crate::{Error, FineTuning, Run, Tell};

/// See [`Platform::train`](super::Platform::train).
pub(super) fn train<B: Platform>(
    _model: Gpt2<B>,
    _run: &Run<B>,
    _tokens: &[i32],
    _tuning: &FineTuning,
    _tell: &mut Tell<'_>,
) -> Result<(), Error> {
    let reason = "this program was built without training: build it with the feature `train`";
    Err(Error::Setup(reason.to_owned()))
}

//! In the place of `training`, in a program that was built without it.

use burn::tensor::backend::Backend;
use gpt2::Gpt2;

use crate::Error;

/// See [`Platform::train`](super::Platform::train).
pub(super) fn train<B: Backend>(
    _model: Gpt2<B>,
    _tokens: &[i32],
    _steps: usize,
    _learning_rate: f64,
    _device: &B::Device,
    _told: &mut dyn FnMut(f32),
) -> Result<(), Error> {
    let reason = "this program was built without training: build it with the feature `train`";
    Err(Error::Setup(reason.to_owned()))
}

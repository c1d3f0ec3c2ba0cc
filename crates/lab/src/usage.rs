//! A loaded model in use: a text that goes on, and steps of training.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Instant;

use checkpoint::Format;
use gpt2::layout::FileTensor;
use meter::{Panics, Recorder};

use crate::finite::{self, Seen};
use crate::worker::{open_device, run_of, target_of};
use crate::{Error, Experiment, Kept, Platform, RunSpec, devices};

/// What to do with a model once it is loaded.
#[derive(Debug, Clone)]
pub enum Task {
    /// Goes on with a text, by the likeliest token each time. Every token is computed from all before it that fit the model's
    /// context.
    Generate {
        /// Token ids to begin with.
        prompt: Vec<u32>,
        /// How many to add.
        tokens: usize,
    },
    /// Trains all parameters with AdamW on one sequence: each token is to be told from those before it.
    FineTune(FineTuning),
}

/// How a model is trained, and what becomes of it.
#[derive(Debug, Clone)]
pub struct FineTuning {
    /// Token ids: at least two, and at most one more than the model's context.
    pub tokens: Vec<u32>,
    /// How many steps.
    pub steps: usize,
    /// Of each step.
    pub learning_rate: f64,
    /// The optimizer's state to begin with, as a training before this one saved it.
    pub resume_optimizer: Option<PathBuf>,
    /// Where to write the optimizer's state.
    pub save_optimizer: Option<PathBuf>,
    /// Where to write the trained model.
    pub save: Option<Saving>,
}

/// A checkpoint that is to be written of a model.
#[derive(Debug, Clone)]
pub struct Saving {
    /// Where to.
    pub path: PathBuf,
    /// In which format.
    pub format: Format,
    /// The tensors as the file is to have them, of the dtype that the model has on the device.
    pub tensors: Vec<FileTensor>,
    /// What the file is to say of the model, where its format has room for it: words, by names.
    pub metadata: BTreeMap<String, String>,
}

/// What is told while a task is carried out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Told {
    /// The model is there.
    Loaded {
        /// What that took.
        seconds: f64,
    },
    /// The next token's id.
    Token(u32),
    /// The mean cross-entropy, in nats a token, before a step, or after the last one.
    Loss(f32),
    /// So many more bytes of the model or of the optimizer's state are written.
    Written {
        /// Since the last time.
        bytes: u64,
    },
}

/// Hears what is told, and says whether to go on.
pub type Tell<'a> = dyn FnMut(Told) -> ControlFlow<()> + 'a;

/// Tells, and is an error where that is the end.
pub(crate) fn say(tell: &mut Tell<'_>, told: Told) -> Result<(), Error> {
    match tell(told) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Stopped),
    }
}

/// Loads a model as `spec` says, and carries out a task with it; `tell` hears of it.
///
/// # Errors
///
/// If the model cannot be loaded, is quantised and should be trained, has no such tokens, or gives numbers that are not
/// finite; or if a thread panicked on the way: what was computed behind that may be anything.
pub(crate) fn put_to_use<E: Experiment>(
    spec: &RunSpec,
    task: &Task,
    tell: &mut Tell<'_>,
) -> Result<(), Error> {
    Panics::watch();
    let usage = Usage {
        spec,
        task,
        tell,
        experiment: PhantomData::<E>,
    };
    let used = AssertUnwindSafe(|| devices::dispatch(spec.device, usage));
    match std::panic::catch_unwind(used) {
        Ok(Err(Error::Stopped)) => Err(Error::Stopped),
        // What a panic led to says less than the panic.
        Ok(result) => Panics::check().map_err(Error::from).and(result),
        Err(_) => {
            let unknown = || Error::Setup("a thread panicked".to_owned());
            Err(Panics::check().map_or_else(Error::from, |()| unknown()))
        }
    }
}

struct Usage<'a, 'b, E> {
    spec: &'a RunSpec,
    task: &'a Task,
    tell: &'a mut Tell<'b>,
    experiment: PhantomData<E>,
}

impl<E: Experiment> devices::OnBackend for Usage<'_, '_, E> {
    type Output = ();

    fn on<B: Platform>(self) -> Result<(), Error> {
        let Usage {
            spec, task, tell, ..
        } = self;
        let (target, kept) = target_of::<E, B>(spec)?;
        let ids = match task {
            Task::Generate { prompt, .. } => check(prompt, 1, spec)?,
            Task::FineTune(tuning) => {
                let ids = check(&tuning.tokens, 2, spec)?;
                check_length(ids.len(), spec.config.context)?;
                ids
            }
        };
        if kept == Kept::Quantised && matches!(task, Task::FineTune(_)) {
            return Err(Error::Setup(format!(
                "{}: a quantised model cannot be trained: its weights are integers",
                spec.variant
            )));
        }
        let dtype = kept.dtype(spec.dtype);
        let device = open_device::<B>(spec, dtype)?;
        let start = Instant::now();
        let clock = Recorder::clock;
        let mut run = run_of::<B>(spec, target.variant, dtype, device.clone(), clock)?;
        if matches!(task, Task::FineTune(_)) {
            // Every layer is changed by a step.
            run.tuning.resident_layers = spec.config.layers;
        }
        let mut model = E::load(&run)?;
        B::finish(&device)?;
        Panics::check()?;
        let seconds = start.elapsed().as_secs_f64();
        say(tell, Told::Loaded { seconds })?;
        match task {
            Task::Generate { tokens, .. } => {
                let mut text = ids;
                for number in 1..=*tokens {
                    let start = text.len().saturating_sub(spec.config.context);
                    let mut bring = |model: &mut _, layer| E::bring_layer(&run, model, layer);
                    let logits = B::logits(&mut model, &text[start..], &device, &mut bring)?;
                    Panics::check()?;
                    let last = &logits[logits.len() - spec.config.vocabulary..];
                    let Some(next) = likeliest(last) else {
                        let seen = Seen {
                            what: format!("the logits for token {number} of {tokens} are"),
                            value: *last
                                .iter()
                                .find(|value| !value.is_finite())
                                .unwrap_or(&f32::NAN),
                            advice: "",
                        };
                        return Err(finite::error(&run, &mut model, &mut bring, seen));
                    };
                    say(tell, Told::Token(next))?;
                    text.push(next as i32);
                }
                Ok(())
            }
            Task::FineTune(tuning) => B::train(model, &run, &ids, tuning, tell),
        }
    }
}

/// Token ids as the model takes them: at least so many, and all within its vocabulary.
fn check(ids: &[u32], least: usize, spec: &RunSpec) -> Result<Vec<i32>, Error> {
    let vocabulary = spec.config.vocabulary;
    if ids.len() < least {
        let reason = format!("{} tokens are too few: give {least} or more", ids.len());
        return Err(Error::Setup(reason));
    }
    match ids.iter().find(|&&id| id as usize >= vocabulary) {
        Some(id) => Err(Error::Setup(format!(
            "token {id} is none of the model's, whose vocabulary has {vocabulary}"
        ))),
        None => Ok(ids.iter().map(|&id| id as i32).collect()),
    }
}

/// That a text to train on fits the context: its last token is told and not read.
fn check_length(tokens: usize, context: usize) -> Result<(), Error> {
    match tokens <= context + 1 {
        true => Ok(()),
        false => Err(Error::Setup(format!(
            "the text has {tokens} tokens, and the model's context is {context}: it is trained on one sequence of at most {} \
             tokens, so give a shorter text",
            context + 1
        ))),
    }
}

/// The place of the largest; of the first, where several are. `None` where one is not finite.
fn likeliest(logits: &[f32]) -> Option<u32> {
    let mut best = 0;
    for (at, value) in logits.iter().enumerate() {
        if !value.is_finite() {
            return None;
        }
        if *value > logits[best] {
            best = at;
        }
    }
    Some(best as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_largest_is_the_likeliest_and_none_is_where_one_is_not_finite() {
        assert_eq!(likeliest(&[0.0, 2.0, 1.0, 2.0]), Some(1));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(likeliest(&[0.0, bad, 1.0]), None);
        }
    }

    #[test]
    fn a_text_may_have_one_token_more_than_the_context_for_the_last_is_only_told() {
        assert!(check_length(33, 32).is_ok());
        let error = check_length(34, 32).unwrap_err().to_string();
        assert!(
            error.contains("34 tokens") && error.contains("context is 32"),
            "{error}"
        );
    }
}

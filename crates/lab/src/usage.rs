//! A loaded model, put to use: a text that goes on, and steps of training.

use std::marker::PhantomData;
use std::time::Instant;

use crate::meter::Recorder;
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
    FineTune {
        /// Token ids; at least two.
        tokens: Vec<u32>,
        /// How many steps.
        steps: usize,
        /// Of each step.
        learning_rate: f64,
    },
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
}

/// Loads a model as `spec` says, and carries out a task with it; `tell` hears of it.
///
/// # Errors
///
/// If the model cannot be loaded, is quantised and should be trained, or has no such tokens.
pub(crate) fn put_to_use<E: Experiment>(
    spec: &RunSpec,
    task: &Task,
    tell: &mut dyn FnMut(Told),
) -> Result<(), Error> {
    let usage = Usage {
        spec,
        task,
        tell,
        experiment: PhantomData::<E>,
    };
    devices::dispatch(spec.device, usage)
}

struct Usage<'a, E> {
    spec: &'a RunSpec,
    task: &'a Task,
    tell: &'a mut dyn FnMut(Told),
    experiment: PhantomData<E>,
}

impl<E: Experiment> devices::OnBackend for Usage<'_, E> {
    type Output = ();

    fn on<B: Platform>(self) -> Result<(), Error> {
        let Usage {
            spec, task, tell, ..
        } = self;
        let (target, kept) = target_of::<E, B>(spec)?;
        let ids = match task {
            Task::Generate { prompt, .. } => check(prompt, 1, spec)?,
            Task::FineTune { tokens, .. } => check(tokens, 2, spec)?,
        };
        if kept == Kept::Quantised && matches!(task, Task::FineTune { .. }) {
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
        if matches!(task, Task::FineTune { .. }) {
            // Every layer is changed by a step.
            run.tuning.resident_layers = spec.config.layers;
        }
        let mut model = E::load(&run)?;
        B::finish(&device)?;
        tell(Told::Loaded {
            seconds: start.elapsed().as_secs_f64(),
        });
        match *task {
            Task::Generate { tokens, .. } => {
                let mut text = ids;
                for _ in 0..tokens {
                    let start = text.len().saturating_sub(spec.config.context);
                    let mut bring = |model: &mut _, layer| E::bring_layer(&run, model, layer);
                    let logits = B::logits(&mut model, &text[start..], &device, &mut bring)?;
                    let next = likeliest(&logits[logits.len() - spec.config.vocabulary..]);
                    tell(Told::Token(next));
                    text.push(next as i32);
                }
                Ok(())
            }
            Task::FineTune {
                steps,
                learning_rate,
                ..
            } => B::train(model, &ids, steps, learning_rate, &device, &mut |loss| {
                tell(Told::Loss(loss));
            }),
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

/// The place of the largest; of the first, where several are.
fn likeliest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (at, value) in logits.iter().enumerate() {
        if *value > logits[best] {
            best = at;
        }
    }
    best as u32
}

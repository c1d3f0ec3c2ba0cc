//! `harness generate` and `harness finetune`: a loaded model in use.

use std::ops::ControlFlow;

use anyhow::{Context, bail};
use checkpoint::Format;
use gpt2::layout::Reading;
use lab::{FineTuning, Reads, Registered, RunSpec, Task, Told, Tuning};
use meter::HostLimits;

use crate::checkpoints::{Ready, Sidecar, Store, replacing, trained};
use crate::cli::{FinetuneArgs, GenerateArgs, ModelArgs, TextArgs};
use crate::deadline::Deadline;
use crate::exit::Ended;
use crate::manifest::{experiment_names, unknown_experiment};
use crate::registry;
use crate::tokenizer::Tokenizer;

pub fn generate(args: &GenerateArgs) -> anyhow::Result<()> {
    let deadline = Deadline::start(args.model.timeout)?;
    let (tokenizer, prompt) = tokens(&args.text).map_err(|error| deadline.or(error))?;
    let model = Model::find(&args.model, deadline)?;
    let context = model.ready.size.config().context;
    if prompt.len() > context {
        eprintln!(
            "the prompt has {} tokens, and the model's context is {context}: its last {context} tokens are used",
            prompt.len()
        );
    }
    let task = Task::Generate {
        prompt,
        tokens: args.count as usize,
    };
    let mut generated = Vec::new();
    let mut shown = String::new();
    if tokenizer.is_none() {
        eprintln!("without --tokenizer these are token ids");
    }
    let result = model.carry_out(&task, &mut |told| {
        let Told::Token(id) = told else { return };
        generated.push(id);
        // A character may be of several tokens: what is whole is shown.
        let piece = match &tokenizer {
            Some(tokenizer) => {
                let text = tokenizer.decode(&generated);
                let whole = text.trim_end_matches('\u{fffd}');
                let piece = whole.get(shown.len()..).unwrap_or_default().to_owned();
                shown.push_str(&piece);
                piece
            }
            None if generated.len() == 1 => id.to_string(),
            None => format!(",{id}"),
        };
        print!("{piece}");
    });
    if result.is_ok() || !generated.is_empty() {
        println!();
    }
    result
}

pub fn finetune(args: &FinetuneArgs) -> anyhow::Result<()> {
    if !cfg!(feature = "train") {
        let message = "finetune: this program was built without training: build it with the feature `train`, as \
                       `just build` does";
        return Err(Ended::Usage(message.to_owned()).into());
    }
    let deadline = Deadline::start(args.model.timeout)?;
    let (_, tokens) = tokens(&args.text).map_err(|error| deadline.or(error))?;
    replacing::check(args)?;
    let model = Model::find(&args.model, deadline)?;
    let target = args.save.as_deref().map(|path| {
        let dtype = model.trained_in();
        trained::Target::new(&args.model, &model.ready, dtype, path)
    });
    let target = target.transpose()?;
    if let Some(path) = &args.save_optimizer {
        trained::check_file(path)?;
    }
    let task = Task::FineTune(FineTuning {
        tokens,
        steps: args.steps as usize,
        learning_rate: args.learning_rate,
        resume_optimizer: args.resume_optimizer.clone(),
        save_optimizer: args.save_optimizer.clone(),
        save: target.as_ref().map(|target| target.saving.clone()),
    });
    let mut losses = Vec::new();
    model.carry_out(&task, &mut |told| {
        let Told::Loss(loss) = told else { return };
        match losses.len() {
            0 => println!("loss {loss:.6} nats a token as loaded"),
            steps => println!("loss {loss:.6} after {steps} of {} steps", args.steps),
        }
        losses.push(loss);
    })?;
    if let Some(target) = target {
        target.finish(&model.store)?;
        println!("saved {}", target.saving.path.display());
    }
    if let Some(path) = &args.save_optimizer {
        println!("saved {}", path.display());
    }
    match (losses.first(), losses.last()) {
        (Some(first), Some(last)) if last < first => Ok(()),
        _ => bail!("the loss did not fall: a smaller --learning-rate may help"),
    }
}

/// The text's tokens, and what they were made with.
fn tokens(text: &TextArgs) -> anyhow::Result<(Option<Tokenizer>, Vec<u32>)> {
    let tokenizer = text.tokenizer.as_deref().map(Tokenizer::read).transpose()?;
    if let Some(ids) = &text.tokens {
        return Ok((tokenizer, ids.clone()));
    }
    let (Some(tokenizer), Some(prompt)) = (tokenizer, &text.prompt) else {
        let message = "--prompt needs --tokenizer, the model's vocabulary files; or give token ids with --tokens";
        return Err(Ended::Usage(message.to_owned()).into());
    };
    let ids = tokenizer.encode(prompt)?;
    Ok((Some(tokenizer), ids))
}

/// A checkpoint of the user's, ready to be loaded by a technique.
struct Model<'a> {
    args: &'a ModelArgs,
    store: Store,
    experiment: &'static Registered,
    ready: Ready,
    deadline: Deadline,
}

impl<'a> Model<'a> {
    fn find(args: &'a ModelArgs, deadline: Deadline) -> anyhow::Result<Model<'a>> {
        let refused = |message| Err(Ended::Usage(format!("--experiment: {message}")).into());
        let Some(experiment) = registry::find(&args.experiment) else {
            return refused(unknown_experiment(&args.experiment, experiment_names()));
        };
        if experiment.is_yardstick || experiment.reads == Reads::Nothing {
            let name = experiment.name;
            return refused(format!(
                "{name} loads no model: it is what the techniques are held against; try `streamed`"
            ));
        }
        let store = Store::new(args.store.checkpoints.clone());
        let ready = store.import(&args.checkpoint, &args.reading, args.size);
        let ready = ready.map_err(|error| deadline.or(error))?;
        Ok(Model {
            args,
            store,
            experiment,
            ready,
            deadline,
        })
    }

    /// The dtype of its parameters once it is loaded.
    fn trained_in(&self) -> checkpoint::Dtype {
        let memory = self.args.device.backend.memory_model();
        let stored = self.ready.dtype;
        self.experiment.keeps(memory, stored).dtype(stored)
    }

    /// Loads it, and does something with it.
    fn carry_out(&self, task: &Task, tell: &mut dyn FnMut(Told)) -> anyhow::Result<()> {
        let Model {
            args,
            store,
            experiment,
            ready,
            deadline,
        } = self;
        let format = match experiment.reads {
            Reads::StateDict => ready.state_dict_format(Format::Safetensors),
            Reads::Only(format) => format,
            Reads::Nothing => unreachable!("refused when it was looked for"),
        };
        let as_it_is = ready.as_it_is(format, experiment.reads == Reads::StateDict);
        let (checkpoint, reading) = match as_it_is {
            Some(read) => read,
            None => {
                let prepared = store.prepare(ready, format);
                prepared.map_err(|error| deadline.or(error))?;
                (ready.path(format), Reading::default())
            }
        };
        let digests = Sidecar::load(&ready.sidecar())?.digests;
        let spec = RunSpec {
            config: ready.size.config(),
            variant: experiment.name.to_owned(),
            dtype: ready.dtype,
            tuning: Tuning::default(),
            device: args.device,
            cache: meter::CacheState::Warm,
            checkpoint,
            reading,
            digests,
            reference_logits: None,
            save_logits: None,
            is_reference_given: false,
            forward_in_software: true,
            host: HostLimits::default(),
            last_words: None,
            only_time: true,
        };
        let used = experiment.put_to_use(&spec, task, &mut |told| {
            match told {
                Told::Loaded { seconds } => eprintln!(
                    "{}: a GPT-2 of size {}, {}, loaded by {} in {seconds:.3} s",
                    args.checkpoint.display(),
                    ready.size,
                    ready.dtype,
                    experiment.name
                ),
                Told::Written { .. } => deadline.writing(),
                Told::Token(_) | Told::Loss(_) => {}
            }
            tell(told);
            match deadline.is_reached() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        match used {
            Err(lab::Error::Stopped) => Err(deadline.why().into()),
            used => used.context("the model could not be used"),
        }
    }
}

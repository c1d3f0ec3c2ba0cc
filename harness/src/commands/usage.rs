//! `harness generate` and `harness finetune`: a loaded model, put to use.

use std::io::Write;

use anyhow::{Context, bail};
use checkpoint::Format;
use lab::{HostLimits, Reads, RunSpec, Task, Told, Tuning};

use crate::checkpoints::{Sidecar, Store};
use crate::cli::{FinetuneArgs, GenerateArgs, ModelArgs, TextArgs};
use crate::exit::Ended;
use crate::manifest::{experiment_names, unknown_experiment};
use crate::tokenizer::Tokenizer;
use crate::{interrupt, registry};

pub fn generate(args: &GenerateArgs) -> anyhow::Result<()> {
    let (tokenizer, prompt) = tokens(&args.text)?;
    let task = Task::Generate {
        prompt: prompt.clone(),
        tokens: args.count,
    };
    let mut generated = Vec::new();
    let mut shown = String::new();
    if tokenizer.is_none() {
        eprintln!("without --tokenizer these are token ids");
    }
    let mut out = std::io::stdout();
    carry_out(&args.model, &task, &mut |told| {
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
        // Whoever reads may have gone away.
        let _ = write!(out, "{piece}").and_then(|()| out.flush());
    })?;
    let _ = writeln!(out);
    Ok(())
}

pub fn finetune(args: &FinetuneArgs) -> anyhow::Result<()> {
    if !cfg!(feature = "train") {
        let message = "finetune: this program was built without training: build it with the feature `train`, as \
                       `just build` does";
        return Err(Ended::Usage(message.to_owned()).into());
    }
    let (_, tokens) = tokens(&args.text)?;
    let task = Task::FineTune {
        tokens,
        steps: args.steps,
        learning_rate: args.learning_rate,
    };
    let mut losses = Vec::new();
    carry_out(&args.model, &task, &mut |told| {
        let Told::Loss(loss) = told else { return };
        match losses.len() {
            0 => println!("loss {loss:.6} nats a token as loaded"),
            steps => println!("loss {loss:.6} after {steps} of {} steps", args.steps),
        }
        losses.push(loss);
    })?;
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

/// Loads the model by the technique that was asked for, and does something with it.
fn carry_out(args: &ModelArgs, task: &Task, tell: &mut dyn FnMut(Told)) -> anyhow::Result<()> {
    interrupt::watch()?;
    let Some(experiment) = registry::techniques().find(|known| known.name == args.experiment)
    else {
        let message = unknown_experiment(&args.experiment, experiment_names());
        return Err(Ended::Usage(format!("--experiment: {message}")).into());
    };
    let store = Store::new(args.store.checkpoints.clone());
    let ready = store.import(&args.checkpoint, &args.reading, args.size)?;
    let format = match experiment.reads {
        Reads::StateDict => ready.state_dict_format(Format::Safetensors),
        Reads::Only(format) => format,
        Reads::Nothing => bail!("{} loads no checkpoint", args.experiment),
    };
    let as_it_is = ready.as_it_is(format, experiment.reads == Reads::StateDict);
    let (checkpoint, layout) = match as_it_is {
        Some(read) => read,
        None => {
            store.prepare(&ready, format)?;
            (ready.path(format), None)
        }
    };
    let digests = Sidecar::load(&ready.sidecar())?.digests;
    let spec = RunSpec {
        config: ready.size.config(),
        variant: experiment.name.to_owned(),
        dtype: ready.dtype,
        tuning: Tuning::default(),
        device: args.device,
        cache: lab::CacheState::Warm,
        checkpoint,
        layout,
        digests,
        reference_logits: None,
        save_logits: None,
        forward_in_software: true,
        host: HostLimits::default(),
        last_words: None,
        only_time: true,
    };
    experiment
        .put_to_use(&spec, task, &mut |told| {
            if let Told::Loaded { seconds } = told {
                eprintln!(
                    "{}: a GPT-2 of size {}, {}, loaded by {} in {seconds:.3} s",
                    args.checkpoint.display(),
                    ready.size,
                    ready.dtype,
                    experiment.name
                );
            }
            tell(told);
        })
        .context("the model could not be used")
}

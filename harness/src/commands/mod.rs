//! The commands, one file each.

mod advise;
mod compare;
mod doctor;
mod dry_run;
mod explain;
mod list;
mod manual;
pub mod overhead;
mod plot;
mod prepare;
mod publish;
mod regenerate;
mod run;
mod usage;

use crate::checkpoints::derive;
use crate::cli::Command;
use crate::subprocess::end_with_parent;
use crate::worker;
use gpt2::layout::{Layouts, Reading};

/// Does what was asked for.
pub fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list::list(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Prepare(args) => prepare::prepare(&args),
        Command::Run(args) => run::run(&args),
        Command::Minmem(args) => run::minmem(&args),
        Command::Plot(args) => plot::plot(&args),
        Command::Report(args) => plot::report(&args),
        Command::Generate(args) => usage::generate(&args),
        Command::Finetune(args) => usage::finetune(&args),
        Command::Advise(args) => advise::advise(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Overhead(args) => overhead::overhead(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::Publish(args) => publish::publish(&args),
        Command::Regenerate(args) => regenerate::regenerate(&args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
        Command::Worker(args) => worker::work(&args),
        #[cfg(target_os = "linux")]
        Command::Guard(args) => crate::guard::guard(&args),
        Command::Derive(args) => {
            end_with_parent();
            derive::derive(&args.checkpoint, &args.size.config(), args.format, &args.to)
        }
        Command::Reference(args) => {
            end_with_parent();
            let reading = Reading {
                layout: args.layout,
                key: args.key,
            };
            let layouts = Layouts::of(&reading)?;
            let config = args.size.config();
            Ok(lab::write_logits(
                &args.checkpoint,
                &layouts,
                &config,
                &args.to,
            )?)
        }
    }
}

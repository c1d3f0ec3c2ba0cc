//! The commands, one file each.

mod advise;
mod compare;
mod doctor;
mod dry_run;
mod explain;
mod list;
pub mod overhead;
mod plot;
mod prepare;
mod run;
mod usage;

use crate::checkpoints::{derive, layouts};
use crate::cli::Command;
use crate::{readme, worker};

/// Does what was asked for.
pub fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List => {
            list::list();
            Ok(())
        }
        Command::Doctor(args) => {
            doctor::doctor(&args);
            Ok(())
        }
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
        Command::Readme(args) => readme::update(&args.file),
        Command::Worker(args) => worker::work(&args),
        Command::Derive(args) => {
            derive::derive(&args.checkpoint, &args.size.config(), args.format, &args.to)
        }
        Command::Reference(args) => Ok(lab::write_logits(
            &args.checkpoint,
            &layouts(args.layout.as_deref())?,
            &args.size.config(),
            &args.to,
        )?),
    }
}

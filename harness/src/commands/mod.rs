//! The commands, one file each.

mod doctor;
mod dry_run;
mod list;
mod plot;
mod prepare;
mod run;

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
        Command::Plot(args) => plot::plot(&args),
        Command::Readme(args) => readme::update(&args.file),
        Command::Worker(args) => worker::work(&args),
        Command::Reference(args) => Ok(lab::write_logits(
            &args.checkpoint,
            &args.size.config(),
            &args.to,
        )?),
    }
}

//! `harness completions` and `harness man`: what a shell and `man` want to know of the command line.

use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::exit::Ended;
use crate::manifest::unknown;

pub fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "harness", &mut script);
    print!("{}", String::from_utf8(script)?);
    Ok(())
}

pub fn man(args: &ManArgs) -> anyhow::Result<()> {
    let mut all = Cli::command();
    // Names a command as it is called: `harness run`.
    all.build();
    let described = match &args.command {
        None => all,
        Some(name) => match all.find_subcommand(name) {
            Some(command) => command.clone(),
            None => {
                let shown = all
                    .get_subcommands()
                    .filter(|command| !command.is_hide_set());
                let names = shown.map(clap::Command::get_name);
                return Err(Ended::Usage(unknown("command", name, names)).into());
            }
        },
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(described).render(&mut page)?;
    print!("{}", String::from_utf8(page)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_free_of_contradictions() {
        Cli::command().debug_assert();
    }
}

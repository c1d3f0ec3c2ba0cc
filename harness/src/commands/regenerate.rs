//! `harness regenerate`: everything that is made of the committed rows, made again.

use crate::checkout;
use crate::cli::RegenerateArgs;
use crate::committed::{Comparison, broken_links};
use crate::exit::Ended;

pub fn regenerate(args: &RegenerateArgs) -> anyhow::Result<()> {
    let Some(root) = checkout::root() else {
        let message = "regenerate: there is no checkout around the current folder".to_owned();
        return Err(Ended::Usage(message).into());
    };
    let comparison = Comparison::of(&root)?;
    let stale = comparison.differences.len();
    for difference in &comparison.differences {
        println!("{difference}");
    }
    if !args.check {
        comparison.apply()?;
    }
    let broken = broken_links(&root)?;
    for (file, link) in &broken {
        println!("broken link in {}: {}", file.display(), link.display());
    }
    let mut wrong = Vec::new();
    if args.check && stale > 0 {
        wrong.push(format!(
            "{stale} files are not what is made of the rows: run `harness regenerate`"
        ));
    }
    if !broken.is_empty() {
        wrong.push(format!("{} links lead nowhere", broken.len()));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Ended::Stale(wrong.join("; ")).into()),
    }
}

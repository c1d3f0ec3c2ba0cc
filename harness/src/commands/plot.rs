//! `harness plot` and `harness report`: recorded results, shown again.

use anyhow::ensure;

use crate::cli::ResultsArgs;
use crate::presentation::Presentation;
use crate::summary::Spoilt;

pub fn plot(args: &ResultsArgs) -> anyhow::Result<()> {
    let presentation = present(args)?;
    println!("{}", presentation.terminal());
    println!("charts: {}", presentation.plots.display());
    Ok(())
}

pub fn report(args: &ResultsArgs) -> anyhow::Result<()> {
    let presentation = present(args)?;
    println!("{}", presentation.results.join("report.md").display());
    println!("{}", presentation.results.join("report.html").display());
    Ok(())
}

fn present(args: &ResultsArgs) -> anyhow::Result<Presentation> {
    let spoilt = Spoilt::counted_if(args.include_spoilt);
    let presentation = Presentation::of(&args.results, args.plots.clone(), spoilt)?;
    ensure!(
        !presentation.is_simulated(),
        "{}: was measured on a simulated device, which is for tests: no chart and no report is made of it",
        args.results.display()
    );
    presentation.write()?;
    Ok(presentation)
}

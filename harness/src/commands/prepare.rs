//! `harness prepare`: checkpoints, made or imported.

use crate::checkpoints::{Ready, Store};
use crate::cli::PrepareArgs;
use crate::interrupt;

/// Kept free on the disk when checkpoints are prepared by hand.
const SPARE_BYTES: u64 = 1 << 30;

pub fn prepare(args: &PrepareArgs) -> anyhow::Result<()> {
    interrupt::watch()?;
    let store = Store::new(args.store.checkpoints.clone());
    let ready: Vec<Ready> = match &args.from {
        Some(file) => {
            let ready = store.import(file, &args.reading, args.sizes.first().copied())?;
            println!(
                "{}: a GPT-2 of size {}, {}",
                file.display(),
                ready.size,
                ready.dtype
            );
            if !ready.ignored.is_empty() {
                println!(
                    "  {} mask buffers in it are no weights and are ignored",
                    ready.ignored.len()
                );
            }
            if ready.skipped > 0 {
                println!(
                    "  {} tensors in it are none of the model's and are skipped",
                    ready.skipped
                );
            }
            vec![ready]
        }
        None => args
            .sizes
            .iter()
            .map(|&size| store.prepared(size, args.dtype))
            .collect(),
    };
    let all = || {
        ready
            .iter()
            .flat_map(|ready| args.formats.iter().map(move |format| (ready, *format)))
    };
    let bytes = all()
        .map(|(ready, format)| store.missing_bytes(ready, format))
        .sum();
    store.check_disk(bytes, SPARE_BYTES)?;
    for (ready, format) in all() {
        store.prepare(ready, format)?;
        println!("{}", ready.path(format).display());
    }
    Ok(())
}

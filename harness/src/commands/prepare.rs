//! `harness prepare`: checkpoints, made or imported.

use checkpoint::Format;

use crate::checkpoints::{Ready, Store, hugging_face};
use crate::cli::{LayoutOut, PrepareArgs};
use crate::interrupt;

/// Kept free on the disk when checkpoints are prepared by hand.
const SPARE_BYTES: u64 = 1 << 30;

pub fn prepare(args: &PrepareArgs) -> anyhow::Result<()> {
    if args.layout_out == LayoutOut::HuggingFace {
        hugging_face::check(&args.formats)?;
    }
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
    let formats = match (&args.formats[..], args.layout_out) {
        ([], LayoutOut::Book) => &[Format::Safetensors, Format::Pth, Format::PerTensor][..],
        ([], LayoutOut::HuggingFace) => &[Format::Safetensors],
        (given, _) => given,
    };
    let all = || {
        ready
            .iter()
            .flat_map(|ready| formats.iter().map(move |format| (ready, *format)))
    };
    if args.layout_out == LayoutOut::HuggingFace {
        let bytes: Result<Vec<u64>, _> = all()
            .map(|(ready, format)| hugging_face::bytes(ready, format))
            .collect();
        // Of what is prepared, it is made of another file.
        let prepared = ready.iter().filter(|_| args.from.is_none());
        let prepared = prepared.map(|ready| store.missing_bytes(ready, Format::Safetensors));
        let all_bytes = bytes?.iter().sum::<u64>() + prepared.sum::<u64>();
        store.check_disk(all_bytes, SPARE_BYTES)?;
        for (ready, format) in all() {
            println!("{}", hugging_face::write(&store, ready, format)?.display());
        }
        return Ok(());
    }
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

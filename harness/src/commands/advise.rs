//! `harness advise`: which technique to take.

use lab::{BackendKind, MemoryModel};

use crate::advice::{Choice, Situation, recorded, sheet};
use crate::cli::AdviseArgs;
use crate::exit::Ended;
use crate::recorded::roots;
use crate::units;

pub fn advise(args: &AdviseArgs) -> anyhow::Result<()> {
    let memory = match (args.device, args.device_free) {
        (Some(device), _) => device.backend.memory_model(),
        (None, Some(_)) => MemoryModel::Discrete,
        (None, None) => BackendKind::Flex.memory_model(),
    };
    let situation = Situation {
        size: args.size,
        dtype: args.dtype,
        memory,
        host_bytes: args.host.map(|size| size.0),
        device_bytes: args.device_free.map(|size| size.0),
    };
    let roots = match &args.results {
        Some(root) => vec![root.clone()],
        None => roots().to_vec(),
    };
    let records: Vec<_> = roots
        .iter()
        .rev()
        .flat_map(|root| recorded(root, &situation))
        .collect();
    let choices = situation.choices(&records);
    let (fitting, others): (Vec<Choice>, Vec<Choice>) =
        choices.into_iter().partition(|choice| choice.fits);
    let there = |what: &str, bytes: Option<u64>| {
        bytes.map(|bytes| format!("{} of {what} memory", units::bytes(bytes)))
    };
    let there: Vec<String> = [
        there("host", situation.host_bytes),
        there("device", situation.device_bytes),
    ]
    .into_iter()
    .flatten()
    .collect();
    let with = match there.is_empty() {
        true => String::new(),
        false => format!(", with {}", there.join(" and ")),
    };
    let Some(best) = fitting.first() else {
        let title = format!("{}{with}: what each would need", situation.title());
        println!("{}", sheet(title, &others).terminal());
        let message = format!("nothing fits: {}{with}", situation.title());
        return Err(Ended::NothingFits(message).into());
    };
    println!("{}\n", sentence(best, &fitting));
    let title = format!("{}{with}: what fits, the best first", situation.title());
    println!("{}", sheet(title, &fitting).terminal());
    if !others.is_empty() {
        let title = "what does not fit".to_owned();
        println!("{}", sheet(title, &others).terminal());
    }
    println!(
        "≤: what its memory contract promises; without: the smallest memory it was found to survive in. Times are medians \
         of what is recorded below {}, with a warm cache.",
        roots
            .iter()
            .map(|root| root.display().to_string())
            .collect::<Vec<_>>()
            .join(" and ")
    );
    Ok(())
}

/// What to take, and why.
fn sentence(best: &Choice, fitting: &[Choice]) -> String {
    let device = best.device_bytes.map(units::bytes);
    let device = device.map_or(String::new(), |bytes| format!(" and {bytes} on the device"));
    let host = units::bytes(best.host_bytes);
    let mut sentence = format!("take {}: it needs {host} on the host{device}", best.name);
    match (best.ready_seconds, best.load_seconds) {
        (Some(ready), Some(load)) => {
            let (load, ready) = (units::seconds(load), units::seconds(ready));
            sentence +=
                &format!(", loads in {load}, and is through its first forward after {ready}");
        }
        (_, Some(load)) => sentence += &format!(", and loads in {}", units::seconds(load)),
        _ => sentence += "; none that fits was timed at this size",
    }
    let smaller = fitting
        .iter()
        .filter(|choice| choice.is_exact == best.is_exact)
        .min_by_key(|choice| (choice.device_bytes, choice.host_bytes));
    match smaller.filter(|smaller| smaller.name != best.name) {
        Some(smaller) => {
            let device = smaller.device_bytes.map(units::bytes);
            let device =
                device.map_or(String::new(), |bytes| format!(" and {bytes} on the device"));
            let host = units::bytes(smaller.host_bytes);
            format!(
                "{sentence}. the leanest is {}, with {host} on the host{device}",
                smaller.name
            )
        }
        None => sentence,
    }
}

//! Choices as a table.

use super::choice::{Choice, Home};
use super::times::{Times, Timing};
use crate::sheet::{ABSENT, Sheet, numbers, words};
use crate::units;

/// The choices as a table, in their order.
pub fn sheet(title: String, choices: &[Choice]) -> Sheet {
    let has_device = choices.iter().any(|choice| choice.device_bytes.is_some());
    let has_ready = choices.iter().any(|choice| choice.times.ready().is_some());
    let has_times = choices
        .iter()
        .any(|choice| !matches!(choice.times, Times::NotMeasured));
    let mut columns = vec![words("technique"), numbers("host memory")];
    if has_device {
        columns.push(numbers("device memory"));
    }
    if has_times {
        columns.push(words("page cache"));
        columns.push(numbers("load"));
    }
    if has_ready {
        columns.push(numbers("load and first forward"));
    }
    columns.push(words("weights"));
    let rows = choices.iter().map(|choice| {
        let mark = if choice.is_host_measured { "" } else { "≤ " };
        let mut row = vec![
            choice.technique.to_owned(),
            format!("{mark}{}", units::bytes(choice.host_bytes)),
        ];
        if has_device {
            let device = choice.device_bytes.map(units::bytes);
            row.push(device.map_or(ABSENT.to_owned(), |bytes| format!("≤ {bytes}")));
        }
        if has_times {
            let (cache, load) = match &choice.times {
                Times::Measured { cache, load, .. } => (cache.clone(), load.to_string()),
                Times::NotMeasuredCold => (ABSENT.to_owned(), "not measured cold".to_owned()),
                Times::NotMeasured => (ABSENT.to_owned(), ABSENT.to_owned()),
            };
            row.extend([cache, load]);
        }
        if has_ready {
            let ready = choice.times.ready();
            row.push(ready.map_or(ABSENT.to_owned(), Timing::to_string));
        }
        row.push(weights(choice));
        row
    });
    let rows = rows.collect();
    Sheet {
        title,
        columns,
        rows,
        remarks: Vec::new(),
    }
}

fn weights(choice: &Choice) -> String {
    let weights = match (choice.is_exact, choice.logits_error) {
        (true, _) => "the checkpoint's".to_owned(),
        (false, Some(error)) => format!("rounded: logits off by {:.2} %", 100.0 * error),
        (false, None) => "rounded".to_owned(),
    };
    match choice.home {
        Home::OwnMemory => weights,
        Home::FilePages => format!("{weights}, in the file's pages"),
        Home::File => {
            format!("{weights}, read again for each forward: for where nothing else fits")
        }
    }
}

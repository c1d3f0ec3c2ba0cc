//! `harness advise`: which technique to take.

use lab::{BackendKind, DeviceReport, MemoryModel};
use meter::HostCaps;
use serde::Serialize;

use crate::advice::{
    Choice, Evidence, Place, Situation, Times, Whose, choices, evidence, read, sheet,
};
use crate::cli::AdviseArgs;
use crate::exit::Ended;
use crate::machine::{self, Machine};
use crate::recorded::roots;
use crate::units::{self, ByteSize};

/// What a person hears. As JSON with `--json`.
#[derive(Serialize)]
struct Advice {
    situation: Situation,
    host_bytes_from: Option<Source>,
    device_bytes_from: Option<Source>,
    /// Where every time was measured.
    measured_on: Option<Place>,
    /// What a person has to know of where times come from, or why there are none.
    remark: Option<String>,
    /// The best first; those that do not fit last.
    choices: Vec<Choice>,
}

/// Where a figure of free memory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    CommandLine,
    FreeNow,
}

pub fn advise(args: &AdviseArgs) -> anyhow::Result<()> {
    let devices = lab::find_devices();
    if let Some(spec) = args.device
        && !devices.iter().any(|device| device.spec == spec)
        && spec.index > 0
    {
        let message =
            format!("--device: there is no {spec} on this machine: harness list tells the devices");
        return Err(Ended::Usage(message).into());
    }
    let advice = Advice::of(args, &devices);
    match args.format.json {
        true => println!("{}", serde_json::to_string_pretty(&advice)?),
        false => advice.print(),
    }
    if !advice.choices.iter().any(|choice| choice.fits) {
        let message = format!("nothing fits: {}", advice.title());
        return Err(Ended::NothingFits(message).into());
    }
    Ok(())
}

impl Advice {
    fn of(args: &AdviseArgs, devices: &[DeviceReport]) -> Advice {
        let (host_bytes, host_bytes_from) =
            asked_or_free(args.host, machine::available_memory_bytes());
        let device = args.device.and_then(|spec| {
            let mut usable = devices.iter().filter(|device| device.state.is_ok());
            usable.find(|device| device.spec == spec)
        });
        let free = device.and_then(|device| device.free_bytes);
        let (device_bytes, device_bytes_from) = asked_or_free(args.device_free, free);
        let memory = memory(args);
        let situation = Situation {
            size: args.size,
            dtype: args.dtype,
            memory,
            device: args.device,
            is_software: memory == MemoryModel::Discrete
                && device.is_some_and(|device| device.is_software),
            host_bytes,
            device_bytes,
        };
        let Evidence {
            place,
            records,
            remark,
        } = recorded(args, &situation, devices);
        Advice {
            choices: choices(&situation, &records),
            situation,
            host_bytes_from,
            device_bytes_from,
            measured_on: place,
            remark,
        }
    }

    /// What is to be loaded, and with how much memory.
    fn title(&self) -> String {
        let there = |what: &str, bytes: Option<u64>, from: Option<Source>| {
            let from = match from {
                Some(Source::FreeNow) => ", as is free now",
                _ => "",
            };
            bytes.map(|bytes| format!("{} of {what} memory{from}", units::bytes(bytes)))
        };
        let host = there("host", self.situation.host_bytes, self.host_bytes_from);
        let device = there(
            "device",
            self.situation.device_bytes,
            self.device_bytes_from,
        );
        let there: Vec<String> = [host, device].into_iter().flatten().collect();
        let name = self.measured_on.as_ref().map(Place::device_name);
        let title = self.situation.title(name.as_deref());
        match there.is_empty() {
            true => title,
            false => format!("{title}, with {}", there.join(" and ")),
        }
    }

    fn print(&self) {
        let title = self.title();
        let (fitting, others): (Vec<Choice>, Vec<Choice>) =
            self.choices.iter().cloned().partition(|choice| choice.fits);
        match fitting.first() {
            Some(best) => {
                println!("{}", self.sentence(best, &fitting));
                let title = format!("{title}: what fits, the best first");
                println!("{}", sheet(title, &fitting).terminal());
                if !others.is_empty() {
                    println!(
                        "{}",
                        sheet("what does not fit".to_owned(), &others).terminal()
                    );
                }
            }
            None => {
                let title = format!("{title}: what each would need");
                println!("{}", sheet(title, &others).terminal());
            }
        }
        println!("{}", self.legend());
    }

    fn legend(&self) -> String {
        const MEMORY: &str = "≤: what its memory contract promises; without: the smallest memory it was found to survive in.";
        const TIMES: &str = "medians, with the fastest and the slowest of n runs. A load with a warm page cache needs memory for \
            the file beside the technique's own; where there is less, the time with a cold one is told.";
        let remark = self.remark.as_deref();
        match &self.measured_on {
            Some(place) => {
                let remark = remark.map_or(String::new(), |remark| format!(" ({remark})"));
                format!(
                    "{MEMORY} Times are those of {}{remark}: {TIMES}",
                    place.describe()
                )
            }
            None => format!(
                "{MEMORY} There are no times: {}.",
                remark.unwrap_or("none is recorded")
            ),
        }
    }

    /// What to take, and why.
    fn sentence(&self, best: &Choice, fitting: &[Choice]) -> String {
        let needs = |choice: &Choice| {
            let device = choice.device_bytes.map(units::bytes);
            let device =
                device.map_or(String::new(), |bytes| format!(" and {bytes} on the device"));
            format!("{} on the host{device}", units::bytes(choice.host_bytes))
        };
        let mut sentence = format!("take {}: it needs {}", best.technique, needs(best));
        match (&best.times, &self.measured_on) {
            (Times::Measured { cache, load, ready }, Some(place)) => {
                sentence += &format!(", and loads in {load}");
                if let Some(ready) = ready {
                    sentence += &format!(" and is through its first forward after {ready}");
                }
                sentence += &format!(" (a {cache} page cache; {})", place.describe());
            }
            (Times::NotMeasuredCold, _) => {
                sentence += "; this memory does not hold the file beside it, and it was not timed with a cold page cache";
            }
            _ => sentence += "; it was not timed",
        }
        let timed = fitting
            .iter()
            .filter(|choice| matches!(choice.times, Times::Measured { .. }))
            .count();
        if matches!(best.times, Times::Measured { .. }) && timed < fitting.len() {
            sentence += &format!(
                "; of the {} that fit, {timed} {} timed there",
                fitting.len(),
                if timed == 1 { "is" } else { "are" }
            );
        }
        let smaller = fitting
            .iter()
            .filter(|choice| choice.is_exact == best.is_exact)
            .min_by_key(|choice| (choice.device_bytes, choice.host_bytes));
        match smaller.filter(|smaller| smaller.technique != best.technique) {
            Some(smaller) => format!(
                "{sentence}. The leanest is {}, with {}",
                smaller.technique,
                needs(smaller)
            ),
            None => sentence,
        }
    }
}

fn memory(args: &AdviseArgs) -> MemoryModel {
    match (args.device, args.device_free) {
        (Some(device), _) => device.backend.memory_model(),
        (None, Some(_)) => MemoryModel::Discrete,
        (None, None) => BackendKind::Flex.memory_model(),
    }
}

fn asked_or_free(asked: Option<ByteSize>, free: Option<u64>) -> (Option<u64>, Option<Source>) {
    match (asked, free) {
        (Some(asked), _) => (Some(asked.0), Some(Source::CommandLine)),
        (None, Some(free)) => (Some(free), Some(Source::FreeNow)),
        (None, None) => (None, None),
    }
}

/// The runs that count, of the machine that was named, of this one, or of the only one.
fn recorded(args: &AdviseArgs, situation: &Situation, devices: &[DeviceReport]) -> Evidence {
    let roots = match args.results.is_empty() {
        true => roots().to_vec(),
        false => args.results.clone(),
    };
    let recorded: Vec<_> = roots.iter().flat_map(|root| read(root)).collect();
    let here = Machine::detect(
        None,
        devices,
        std::path::Path::new("."),
        &HostCaps::detect(),
    );
    let whose = match &args.machine {
        Some(name) => Whose::Named(name),
        None => Whose::Here(&here.machine),
    };
    evidence(situation, &recorded, whose)
}

#[cfg(test)]
mod tests {
    use checkpoint::Dtype;
    use gpt2::Size;

    use super::*;

    fn advice(host: Option<ByteSize>, free: Option<u64>) -> Advice {
        let (host_bytes, host_bytes_from) = asked_or_free(host, free);
        let situation = Situation {
            size: Size::Xl,
            dtype: Dtype::F32,
            memory: MemoryModel::Unified,
            device: None,
            is_software: false,
            host_bytes,
            device_bytes: None,
        };
        Advice {
            choices: choices(&situation, &[]),
            situation,
            host_bytes_from,
            device_bytes_from: None,
            measured_on: None,
            remark: Some("xl in f32 was timed nowhere".to_owned()),
        }
    }

    #[test]
    fn what_is_free_now_counts_where_nothing_is_told_and_is_called_so() {
        let free = advice(None, Some(9 << 30));
        let title =
            "xl (6.10 GiB, f32) into the host's memory (flex), with 9.00 GiB of host memory";
        assert_eq!(free.title(), format!("{title}, as is free now"));
        let told = advice(Some(ByteSize(9 << 30)), Some(1 << 30));
        assert_eq!(told.title(), title);
        assert!(
            told.legend()
                .ends_with("There are no times: xl in f32 was timed nowhere.")
        );
    }

    #[test]
    fn json_holds_raw_numbers_with_their_units_in_their_names() {
        let json = serde_json::to_value(advice(None, Some(9 << 30))).unwrap();
        assert_eq!(json["situation"]["size"], "xl");
        assert_eq!(json["situation"]["memory"], "unified");
        assert_eq!(json["situation"]["host_bytes"], 9u64 << 30);
        assert_eq!(json["host_bytes_from"], "free_now");
        assert!(json["measured_on"].is_null());
        let choice = &json["choices"][0];
        assert!(choice["technique"].is_string() && choice["host_bytes"].is_u64());
        assert_eq!(choice["times"]["state"], "not_measured");
    }
}

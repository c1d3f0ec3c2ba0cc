//! What is asked for, from the environment. What cannot be read ends the process: a test that simulates something else than it
//! says would prove nothing.

use crate::faults::Fault;

/// How many devices there are: `SIMULATED_CUDA_DEVICES`, 1.
const DEVICES: &str = "SIMULATED_CUDA_DEVICES";
/// The memory of each, in bytes: `SIMULATED_CUDA_MEMORY_BYTES`, 8 GiB.
const MEMORY_BYTES: &str = "SIMULATED_CUDA_MEMORY_BYTES";
/// Their compute capability, 80 for 8.0: `SIMULATED_CUDA_CAPABILITY`, 80.
const CAPABILITY: &str = "SIMULATED_CUDA_CAPABILITY";
/// The newest CUDA that the driver serves, 12040 for 12.4: `SIMULATED_CUDA_DRIVER`, 12090.
const DRIVER: &str = "SIMULATED_CUDA_DRIVER";
/// When copies are made, `call` or `late`: `SIMULATED_CUDA_COPIES`, `call`.
const COPIES: &str = "SIMULATED_CUDA_COPIES";
/// What fails: `SIMULATED_CUDA_FAULTS`, nothing. See `faults.rs`.
const FAULTS: &str = "SIMULATED_CUDA_FAULTS";
/// Where what happened is written, a line for each: `SIMULATED_CUDA_LOG`, nowhere.
const LOG: &str = "SIMULATED_CUDA_LOG";

pub struct Settings {
    pub devices: i32,
    pub memory_bytes: u64,
    pub capability: i32,
    pub driver: i32,
    pub copies_late: bool,
    pub faults: Vec<Fault>,
    pub log: Option<std::path::PathBuf>,
}

impl Settings {
    pub fn from_environment() -> Settings {
        let faults = word(FAULTS).unwrap_or_default();
        let faults = faults.split(',').filter(|fault| !fault.is_empty());
        Settings {
            devices: number(DEVICES, 1),
            memory_bytes: number(MEMORY_BYTES, 8 << 30),
            capability: number(CAPABILITY, 80),
            driver: number(DRIVER, 12090),
            copies_late: match word(COPIES).as_deref() {
                None | Some("call") => false,
                Some("late") => true,
                Some(other) => wrong(COPIES, other),
            },
            faults: faults
                .map(|text| Fault::parse(text).unwrap_or_else(|| wrong(FAULTS, text)))
                .collect(),
            log: word(LOG).map(Into::into),
        }
    }
}

fn word(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    match word(name) {
        None => default,
        Some(text) => text.parse().unwrap_or_else(|_| wrong(name, &text)),
    }
}

fn wrong(name: &str, text: &str) -> ! {
    eprintln!("the simulated CUDA driver does not understand {name}={text}");
    std::process::abort();
}

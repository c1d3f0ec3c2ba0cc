//! The program `harness`, without its allocator: loading experiments, run and measured. Each run is a fresh process: the program
//! started again with its hidden `worker` command. Nothing of it is an interface for others.

#[macro_use]
mod say;

mod advice;
mod atomic;
mod autopsy;
mod bounded;
mod charts;
mod checkout;
mod checkpoints;
mod claims;
mod cli;
mod commands;
mod committed;
mod configuration;
mod deadline;
mod decision;
mod driver;
mod escape;
mod estimate;
mod execution;
mod executor;
mod exit;
mod external;
mod findings;
#[cfg(target_os = "linux")]
mod guard;
mod host_cap;
mod house;
mod interrupt;
mod interval;
mod json;
mod links;
mod machine;
mod manifest;
mod number;
mod plan;
mod presentation;
mod program;
mod progress;
mod readme;
mod record;
mod recorded;
mod registry;
mod report;
mod results;
mod scratch;
mod sheet;
mod smallest_cap;
mod subprocess;
mod suggest;
mod summary;
mod supply;
mod table;
mod technique;
#[cfg(feature = "text")]
mod tokenizer;
#[cfg(not(feature = "text"))]
#[path = "tokenizer_left_out.rs"]
mod tokenizer;
mod tree;
mod units;
mod worker;

use clap::Parser;

/// What the fuzz targets and the replay of their corpus hand bytes to.
#[doc(hidden)]
pub mod parsers;

/// The program, from its arguments to its exit code.
pub fn run() -> std::process::ExitCode {
    // Vulkan's drivers look for a Wayland display, and complain on standard error where this is not set.
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
    }
    // Where `just setup cuda` puts it.
    if let Some(root) = checkout::root() {
        // SAFETY: no other thread runs yet.
        unsafe { lab::offer_cuda_toolkit(&root.join("target/cuda")) };
    }
    // A mapped file may be cut off, or its disk fail, while a command reads it.
    meter::tell_bus_errors(meter::BusError::Exit(1));
    meter::outlive_file_size_limit();
    let ended = match cli::Cli::try_parse() {
        Ok(cli) => exit::report(commands::execute(cli.command)),
        Err(usage) => exit::report_usage(&usage),
    };
    scratch::clear();
    ended
}

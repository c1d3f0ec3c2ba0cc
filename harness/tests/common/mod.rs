//! What the tests of the program share: it is started as a user starts it, in a folder of its own.
#![allow(dead_code)]

pub mod saved;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A model that takes a moment.
pub const TINY: &str = "v257-c64-e48-l2-h4";

/// The study's techniques: what a user adds beside them is not in the tests.
pub const SEVEN: &str = "['init-only', 'naive', 'host-then-device', 'sequential', 'meta-device', 'mmap-assign', 'per-tensor']";

pub type Row = HashMap<String, String>;

/// A folder to work in, gone afterwards.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    /// A manifest of the study's techniques for a tiny model on the CPU, with more lines for `[matrix]`.
    pub fn manifest(&self, more: &str) {
        let text = format!(
            "[matrix]\nexperiments = {SEVEN}\nsizes = ['{TINY}']\ndevices = ['flex']\n{more}\n"
        );
        self.write("m.toml", &text);
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
        command.args(args).current_dir(self.path());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs `m.toml` into the folder `out`, and returns what was printed to standard error and the exit code.
    pub fn run_manifest(&self, more: &[&str]) -> (String, i32) {
        let args = [&["run", "m.toml", "--out", "out"], more].concat();
        let output = self.run(&args);
        (
            String::from_utf8(output.stderr).unwrap(),
            output.status.code().unwrap(),
        )
    }

    pub fn rows(&self) -> Vec<Row> {
        let path = self.path().join("out/runs.csv");
        let Ok(reader) = csv::Reader::from_path(path) else {
            return Vec::new();
        };
        reader.into_deserialize().map(|row| row.unwrap()).collect()
    }

    /// Changes the rows of a folder of results.
    pub fn edit(&self, folder: &str, change: impl Fn(&mut Row)) {
        let path = self.path().join(folder).join("runs.csv");
        let mut reader = csv::Reader::from_path(&path).unwrap();
        let header = reader.headers().unwrap().clone();
        let rows: Vec<Row> = reader.into_deserialize().map(|row| row.unwrap()).collect();
        let mut writer = csv::Writer::from_path(&path).unwrap();
        writer.write_record(&header).unwrap();
        for mut row in rows {
            change(&mut row);
            writer
                .write_record(header.iter().map(|column| &row[column]))
                .unwrap();
        }
        writer.flush().unwrap();
    }

    pub fn out(&self, name: &str) -> PathBuf {
        self.path().join("out").join(name)
    }
}

/// Whether the software Vulkan device is here. Where `REQUIRE_VULKAN` is set, as in the gate, it must be.
pub fn has_vulkan() -> bool {
    let found = lab::find_devices();
    let usable = found
        .iter()
        .any(|device| device.spec.to_string() == "vulkan" && device.state.is_ok());
    if !usable {
        assert!(
            std::env::var_os("REQUIRE_VULKAN").is_none(),
            "no Vulkan device, and one is required"
        );
        eprintln!("skipped: no Vulkan device");
    }
    usable
}

pub fn number(row: &Row, column: &str) -> u64 {
    row[column]
        .parse()
        .unwrap_or_else(|_| panic!("{column} of {row:?}"))
}

/// A file of the tiny GPT-2 that PyTorch saved.
pub fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/gpt2/tests/fixtures");
    folder
        .join(name)
        .canonicalize()
        .unwrap()
        .display()
        .to_string()
}

//! A machine with simulated GPUs, for the tests of other crates, which include this file: the driver is this crate's library,
//! libnvrtc and its headers are real.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const MANAGEMENT: &str = "libnvidia-ml.so.1";

/// Where a program finds the driver, and what compiles kernels.
pub struct Simulated {
    links: tempfile::TempDir,
    toolkit: PathBuf,
}

impl Simulated {
    /// Builds the driver. `None`, and said so, where there is no compiler for kernels; in the gate (`REQUIRE_CUDA_COMPILER`) there
    /// must be one.
    pub fn machine() -> Option<Simulated> {
        let toolkit = root().join("target/cuda");
        if !toolkit.join("include/cuda_runtime.h").exists() {
            assert!(
                std::env::var_os("REQUIRE_CUDA_COMPILER").is_none(),
                "libnvrtc and its headers are required: `just cuda` brings them"
            );
            eprintln!("skipped: no libnvrtc with headers: `just cuda` brings them");
            return None;
        }
        let links = tempfile::tempdir().unwrap();
        let toolkit = toolkit.canonicalize().unwrap();
        let machine = Simulated { links, toolkit };
        for name in ["libcuda.so.1", MANAGEMENT] {
            std::os::unix::fs::symlink(driver(), machine.links.path().join(name)).unwrap();
        }
        Some(machine)
    }

    /// The same without its management library: nobody is told what is free before a device is opened.
    pub fn without_management(self) -> Simulated {
        std::fs::remove_file(self.links.path().join(MANAGEMENT)).unwrap();
        self
    }

    /// Where the linker finds the driver, and libnvrtc as well.
    pub fn with_compiler(&self) -> String {
        let compiler = self.toolkit.join("lib");
        format!("{}:{}", self.links.path().display(), compiler.display())
    }

    /// Has a program run on this machine; `settings` are the driver's, without `SIMULATED_CUDA_`.
    pub fn offer(&self, command: &mut Command, settings: &[(&str, &str)]) {
        command
            .env("LD_LIBRARY_PATH", self.with_compiler())
            .env("CUDA_PATH", &self.toolkit);
        for (name, value) in settings {
            command.env(format!("SIMULATED_CUDA_{name}"), value);
        }
    }
}

fn root() -> &'static Path {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let root = folders.find(|folder| folder.join("justfile").exists());
    root.expect("the tests are in the checkout")
}

/// The driver's library, which cargo builds beside the test.
fn driver() -> &'static Path {
    static DRIVER: OnceLock<PathBuf> = OnceLock::new();
    DRIVER.get_or_init(|| {
        // target/release/deps/test
        let test = std::env::current_exe().unwrap();
        let target = test.ancestors().nth(3).unwrap();
        let mut build = Command::new(env!("CARGO"));
        build
            .args([
                "build",
                "--quiet",
                "--release",
                "--package",
                "simulated-cuda",
            ])
            .arg("--target-dir")
            .arg(target)
            .current_dir(root());
        assert!(build.status().unwrap().success());
        target.join("release/libsimulated_cuda.so")
    })
}

//! `just demo` shows something within minutes on a machine that has never built this: what it builds stays small.

use std::path::Path;
use std::process::Command;

/// What takes minutes to build, or more than Rust and a linker. (burn-store is there, for the library has its face; without any
/// of its formats it is built in seconds.)
const HEAVY: [&str; 9] = [
    "burn-autodiff",
    "burn-cubecl",
    "cubecl",
    "cudarc",
    "nvml-wrapper",
    "resvg",
    "tokenizers",
    "wgpu",
    "zstd-sys",
];

#[test]
fn the_demo_is_built_without_what_it_does_not_need() {
    let built = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--package", "harness"])
        .args(["--no-default-features", "--edges", "normal,build"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    let built = String::from_utf8(built.stdout).unwrap();
    let names: Vec<&str> = built
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(names.contains(&"burn-flex"), "{names:?}");
    let heavy: Vec<&str> = HEAVY
        .into_iter()
        .filter(|heavy| names.contains(heavy))
        .collect();
    assert!(heavy.is_empty(), "the demo builds {heavy:?}");
}

//! Writes the registry of experiments from this crate's own dependency list, takes the manifests into the program, and notes
//! the versions that a record of the machine names, the commit of the sources among them.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// The crates whose versions decide what is measured.
const VERSIONED: [&str; 10] = [
    "burn",
    "burn-cuda",
    "burn-flex",
    "burn-store",
    "burn-wgpu",
    "cubecl",
    "cudarc",
    "memmap2",
    "safetensors",
    "wgpu",
];

/// What the program is built from, seen from here: where git sees a change in it, the commit does not say what was built.
const SOURCES: [&str; 9] = [
    "../Cargo.lock",
    "../Cargo.toml",
    "../crates",
    "../experiments",
    "Cargo.toml",
    "assets",
    "build.rs",
    "manifests",
    "src",
];

fn main() {
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let out = Path::new(&out);
    for input in SOURCES {
        println!("cargo::rerun-if-changed={input}");
    }
    embed_commit();
    std::fs::write(out.join("manifests.rs"), manifests()).expect("OUT_DIR can be written");
    let manifest = read("Cargo.toml");
    let (experiments, left_out) = registry(&manifest);
    std::fs::write(out.join("registry.rs"), experiments).expect("OUT_DIR can be written");
    std::fs::write(out.join("left_out.rs"), left_out).expect("OUT_DIR can be written");
    std::fs::write(out.join("versions.rs"), versions()).expect("OUT_DIR can be written");
}

fn read(path: &str) -> toml::Table {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.parse()
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `[Registered::of::<init_only::InitOnly>("init-only"), …]` for every dependency under `experiments/` that is built, and
/// `&[("burnpack", "stores"), …]` for those that are not, with the feature that brings each.
fn registry(manifest: &toml::Table) -> (String, String) {
    let dependencies = manifest["dependencies"]
        .as_table()
        .expect("[dependencies] is a table");
    let mut entries = String::new();
    let mut left_out = String::new();
    for (name, dependency) in dependencies {
        let path = dependency.get("path").and_then(|path| path.as_str());
        let Some(folder) = path.and_then(|path| path.strip_prefix("../experiments/")) else {
            continue;
        };
        match feature_that_brings(manifest, name) {
            Some(feature) if !is_on(feature) => {
                writeln!(left_out, "    ({name:?}, {feature:?}),").expect("a string grows");
            }
            _ => {
                let module = name.replace('-', "_");
                let capitalised = |word: &str| word[..1].to_uppercase() + &word[1..];
                let unit: String = name.split('-').map(capitalised).collect();
                writeln!(
                    entries,
                    "    Registered::of::<{module}::{unit}>({folder:?}),"
                )
                .expect("a string grows");
            }
        }
    }
    (format!("[\n{entries}]\n"), format!("&[\n{left_out}]\n"))
}

/// The feature that an optional dependency belongs to.
fn feature_that_brings<'a>(manifest: &'a toml::Table, dependency: &str) -> Option<&'a str> {
    let features = manifest["features"]
        .as_table()
        .expect("[features] is a table");
    let enabling = toml::Value::from(format!("dep:{dependency}"));
    let brings = |parts: &toml::Value| parts.as_array().is_some_and(|all| all.contains(&enabling));
    let mut found = features.iter().filter(|(_, parts)| brings(parts));
    found.next().map(|(feature, _)| &**feature)
}

/// Whether a feature of this crate is on.
fn is_on(feature: &str) -> bool {
    let name = feature.to_uppercase().replace('-', "_");
    std::env::var_os(format!("CARGO_FEATURE_{name}")).is_some()
}

/// `&[("burn", "0.21.0"), …, ("rustc", "1.95.0 …")]`
fn versions() -> String {
    let lock = read("../Cargo.lock");
    let packages = lock["package"].as_array().expect("[[package]] is an array");
    let mut entries = String::new();
    for name in VERSIONED {
        // Of several versions the last, which is the newest: older ones belong to optional features of others.
        let package = packages
            .iter()
            .rfind(|package| package["name"].as_str() == Some(name));
        if let Some(version) = package.and_then(|package| package["version"].as_str()) {
            writeln!(entries, "    ({name:?}, {version:?}),").expect("a string grows");
        }
    }
    let rustc = std::env::var("RUSTC").expect("cargo sets RUSTC");
    let rustc = Command::new(rustc)
        .arg("--version")
        .output()
        .expect("rustc runs");
    let rustc = String::from_utf8_lossy(&rustc.stdout);
    let rustc = rustc.trim().trim_start_matches("rustc ");
    writeln!(entries, "    (\"rustc\", {rustc:?}),").expect("a string grows");
    format!("&[\n{entries}]\n")
}

/// `&[("quick", include_str!("…/quick.toml")), …]`, by name.
fn manifests() -> String {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let folder = Path::new(&folder).join("manifests");
    let files = std::fs::read_dir(&folder).expect("the manifests are there");
    let mut files: Vec<_> = files.flatten().map(|file| file.path()).collect();
    files.sort();
    let mut entries = String::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        writeln!(entries, "    ({name:?}, include_str!({file:?})),").expect("a string grows");
    }
    format!("&[\n{entries}]\n")
}

/// Lets the program name the commit that it was built from; without git, it names none.
fn embed_commit() {
    let version = std::env::var("CARGO_PKG_VERSION").expect("cargo sets CARGO_PKG_VERSION");
    let Some(commit) = git(&["rev-parse", "HEAD"]) else {
        println!("cargo::rustc-env=HARNESS_VERSION={version}");
        return;
    };
    // A commit moves the branch, and adds to HEAD's log; in a git worktree git knows where they are. A file that is not there
    // would run this script each time.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let branch = branch.as_deref().unwrap_or("HEAD");
    for name in ["HEAD", "logs/HEAD", "packed-refs", branch] {
        let path = git(&["rev-parse", "--git-path", name]);
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let status = [&["status", "--porcelain", "--"][..], &SOURCES].concat();
    let is_dirty = git(&status).is_none_or(|changes| !changes.is_empty());
    let suffix = if is_dirty { "-dirty" } else { "" };
    println!("cargo::rustc-env=HARNESS_VERSION={version} ({commit:.9}{suffix})");
    println!("cargo::rustc-env=HARNESS_COMMIT={commit}");
    println!("cargo::rustc-env=HARNESS_DIRTY={is_dirty}");
}

/// What git answers, where there is git and it has an answer.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

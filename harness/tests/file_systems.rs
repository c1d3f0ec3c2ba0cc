//! Checkpoints on file systems that fail, are slow, or keep nothing in memory: real ones, mounted by the test.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/fuse.rs"]
mod fuse;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::Place;
use fuse::{Behaviour, Mounted};

/// 28 MiB.
const SIZE: &str = "v5000-c128-e256-l6-h4";

/// The bytes of a checkpoint that this program makes.
fn checkpoint(place: &Place) -> Vec<u8> {
    let args = [
        "prepare",
        "--size",
        SIZE,
        "--format",
        "safetensors",
        "--checkpoints",
        "made",
    ];
    let output = place.run(&args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let mut folders = vec![place.path().join("made")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.ends_with("model.safetensors") => return std::fs::read(path).unwrap(),
                _ => {}
            }
        }
    }
    panic!("no checkpoint was made: {said}");
}

fn manifest(place: &Place, mounted: &Mounted, experiments: &str, more: &str) {
    let text = format!(
        "[matrix]\nexperiments = [{experiments}]\ncheckpoint = '{}'\nsizes = ['{SIZE}']\ndevices = ['flex']\nrepeats = 1\n{more}\n\
         [limits]\ntimeout_seconds = 30\n",
        mounted.file().display()
    );
    place.write("m.toml", &text);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_that_names_it_for_every_way_to_read() {
    let place = Place::new();
    let behaviour = Behaviour::default();
    let Some(mounted) = Mounted::new(checkpoint(&place), &behaviour) else {
        return;
    };
    let techniques = "'naive', 'sequential', 'mmap-assign', 'mmap-zero-copy', 'streamed', 'parallel-read', \
                      'parallel-read:direct', 'parallel-read:uring'";
    manifest(&place, &mounted, techniques, "cache = ['cold']");
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 0, "{said}");
    let rows = place.rows();
    assert!(rows.iter().all(|row| row["status"] == "ok"), "{rows:?}");

    behaviour.fails.store(true, Relaxed);
    let started = std::time::Instant::now();
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 3, "{said}");
    let file = mounted.file().display().to_string();
    let rows = place.rows();
    assert_eq!(rows.len(), 8);
    for row in &rows {
        let (name, reason) = (&row["experiment"], &row["reason"]);
        assert_eq!(row["status"], "failed", "{name}: {reason}");
        assert!(reason.contains(&file), "{name}: {reason}");
        let is_told = ["Input/output error", "its file system, fails"];
        assert!(
            is_told.iter().any(|words| reason.contains(words)),
            "{name}: {reason}"
        );
    }
    let seconds = started.elapsed().as_secs();
    assert!(seconds < 8 * 4, "{seconds} s for eight runs");
}

#[test]
fn a_file_system_that_keeps_nothing_in_memory_is_told_so_and_is_not_short_memory() {
    let place = Place::new();
    let behaviour = Behaviour {
        delay: Duration::from_millis(5),
        ..Behaviour::default()
    };
    let Some(mounted) = Mounted::new(checkpoint(&place), &behaviour) else {
        return;
    };
    manifest(
        &place,
        &mounted,
        "'streamed', 'parallel-read'",
        "cache = ['warm', 'cold']",
    );
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 0, "{said}");
    for row in place.rows() {
        let reason = &row["reason"];
        match &*row["cache"] {
            "cold" => assert_eq!(row["status"], "ok", "{reason}"),
            _ => {
                assert_eq!(row["status"], "skipped", "{reason}");
                assert!(
                    reason.contains("its file system keeps nothing there"),
                    "{reason}"
                );
            }
        }
    }
}

#[test]
fn without_proc_or_cgroups_a_run_is_made_and_what_they_would_tell_is_empty() {
    for hidden in ["/proc", "/sys/fs/cgroup"] {
        let place = Place::new();
        let text = format!(
            "[matrix]\nexperiments = ['streamed', 'mmap-zero-copy']\nsizes = ['{SIZE}']\ndevices = ['flex']\nrepeats = 1\n"
        );
        place.write("m.toml", &text);
        let script = format!("mount -t tmpfs none {hidden} || exit 77; exec \"$@\"");
        let program = env!("CARGO_BIN_EXE_harness");
        let output = std::process::Command::new("unshare")
            .args(["--mount", "sh", "-c", &script, "sh", program])
            .args(["run", "m.toml", "--out", "out"])
            .current_dir(place.path())
            .output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(77) || said.starts_with("unshare:") {
            eprintln!("skipped: nothing can be hidden from a program here: {said}");
            return;
        }
        assert!(output.status.success(), "{hidden}: {said}");
        let rows = place.rows();
        assert_eq!(rows.len(), 2);
        for row in &rows {
            assert_eq!(row["status"], "ok", "{hidden}: {}", row["reason"]);
            assert_ne!(row["host_heap_peak_bytes"], "");
            assert_eq!(
                row["host_rss_peak_bytes"].is_empty(),
                hidden == "/proc",
                "{hidden}"
            );
        }
    }
}

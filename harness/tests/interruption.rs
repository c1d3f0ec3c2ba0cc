//! Ctrl-C, and going on from it.
#![cfg(unix)]

mod common;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use common::{Place, TINY};

fn ids(place: &Place) -> Vec<String> {
    place
        .rows()
        .into_iter()
        .map(|row| row["run_id"].clone())
        .collect()
}

#[test]
fn an_interrupt_keeps_what_is_recorded_and_resume_neither_loses_nor_doubles_a_row() {
    let place = Place::new();
    place.manifest("repeats = 10");
    let mut child = place
        .command(&["run", "m.toml", "--out", "out"])
        .spawn()
        .unwrap();
    let start = Instant::now();
    while ids(&place).len() < 3 {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "nothing is recorded"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let before = ids(&place);
    assert!((3..70).contains(&before.len()), "{} rows", before.len());

    let (said, code) = place.run_manifest(&["--resume"]);
    assert_eq!(code, 0, "{said}");
    let after = ids(&place);
    assert_eq!(
        after[..before.len()],
        before,
        "what was recorded stays as it is"
    );
    assert_eq!(after.len(), 70);
    assert_eq!(after.iter().collect::<HashSet<_>>().len(), 70);
}

#[test]
fn an_interrupted_harness_says_how_to_go_on_and_leaves_no_worker_behind() {
    let place = Place::new();
    // Long enough to be interrupted in the middle of a run.
    place.write(
        "m.toml",
        "[matrix]\nexperiments = ['init-only']\nsizes = ['medium']\ndevices = ['flex']\n",
    );
    let child = place
        .command(&["run", "m.toml", "--out", "out"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !place.out("machine.toml").exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "nothing is run");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(500));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let start = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "the worker was waited for"
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("harness run m.toml --out out --resume"),
        "{said}"
    );
}

#[test]
fn earlier_results_are_kept_beside_the_new_ones() {
    let place = Place::new();
    place.manifest("repeats = 1");
    for _ in 0..2 {
        let (said, code) = place.run_manifest(&["--only", "mmap-assign"]);
        assert_eq!(code, 0, "{said}");
    }
    let ids = ids(&place);
    assert_eq!(ids.len(), 1);
    let id = format!("mmap-assign_{TINY}_flex_f32_warm_1_m-");
    assert!(ids[0].starts_with(&id), "{ids:?}");
    let folders = std::fs::read_dir(place.path()).unwrap();
    let aside = folders.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("out-until-")
    });
    assert_eq!(aside.count(), 1);
}

#[test]
fn an_interrupted_preparation_leaves_no_half_checkpoint_and_no_row() {
    let place = Place::new();
    place.write(
        "m.toml",
        "[matrix]\nexperiments = ['naive']\nsizes = ['medium']\ndevices = ['flex']\n",
    );
    let mut child = place
        .command(&["run", "m.toml", "--out", "out"])
        .spawn()
        .unwrap();
    let folder = place.path().join("checkpoints/medium-f32");
    let start = Instant::now();
    while !folder.exists() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "nothing is prepared"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    assert!(ids(&place).is_empty());
}

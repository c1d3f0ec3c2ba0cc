//! Whatever ends the harness, a worker or the disk: nothing recorded is lost, no half row is read, and `--resume`
//! makes what is missing and nothing else.
#![cfg(target_os = "linux")]

mod common;

use std::collections::HashSet;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Place, Row, TINY};
use meter::{LastWords, Phase, Stage};
use rustix::process::{Pid, Signal, kill_process};

const KILLS: usize = 50;
const SEED: u64 = 20261124;

/// What makes a row the same run: everything but what was measured.
fn key(row: &Row) -> Vec<String> {
    let columns = [
        "run_id",
        "experiment",
        "model",
        "device",
        "cache",
        "host_cap_bytes",
        "repeat",
    ];
    columns.map(|column| row[column].clone()).to_vec()
}

fn keys(rows: &[Row]) -> HashSet<Vec<String>> {
    rows.iter().map(key).collect()
}

fn kill(id: u32) {
    let id = Pid::from_raw(id as i32).unwrap();
    // It may have ended by itself.
    let _ = kill_process(id, Signal::KILL);
}

/// The worker that this harness waits for, if it does.
fn worker_of(harness: &Child) -> Option<u32> {
    let id = harness.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    // git and the one that computes the reference are children for a moment, too.
    let is_worker = |id: &&str| {
        let line = std::fs::read_to_string(format!("/proc/{id}/cmdline"));
        line.is_ok_and(|line| line.split('\0').nth(1) == Some("worker"))
    };
    children.split_whitespace().find(is_worker)?.parse().ok()
}

/// What the worker wrote last.
fn last_words(worker: u32) -> Option<LastWords> {
    let line = std::fs::read_to_string(format!("/proc/{worker}/cmdline")).ok()?;
    let run: serde_json::Value = serde_json::from_str(line.split('\0').nth(2)?).ok()?;
    LastWords::read(run["last_words"].as_str()?.as_ref())
}

fn is_materialising(worker: u32) -> bool {
    let sample = last_words(worker).and_then(|words| words.sample);
    sample.is_some_and(|sample| sample.phase == Phase::Materialise)
}

fn start(place: &Place) -> Child {
    place
        .command(&["run", "m.toml", "--out", "out", "--resume"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn fifty_kills_at_random_moments_lose_no_row_and_double_none() {
    let place = Place::new();
    let repeats = 100;
    place.manifest(&format!("repeats = {repeats}"));
    let mut random = fastrand::Rng::with_seed(SEED);
    assert!(place.run(&["prepare", "--size", TINY]).status.success());
    // How long this machine takes, at the moment, to its first row: kills are to fall before and behind it.
    let began = Instant::now();
    let mut harness = start(&place);
    while place.rows().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "no row is made");
        std::thread::sleep(Duration::from_millis(5));
    }
    let to_first_row = began.elapsed().as_millis() as u64;
    kill(harness.id());
    harness.wait().unwrap();
    let mut before = place.rows();
    for round in 0..KILLS {
        let mut harness = start(&place);
        std::thread::sleep(Duration::from_millis(
            random.u64(20..400.max(2 * to_first_row)),
        ));
        if random.bool()
            && let Some(worker) = worker_of(&harness)
        {
            kill(worker);
            std::thread::sleep(Duration::from_millis(random.u64(0..60)));
        }
        kill(harness.id());
        harness.wait().unwrap();
        let rows = place.rows();
        assert!(rows.len() >= before.len(), "kill {round}: rows are lost");
        assert_eq!(
            rows[..before.len()],
            before,
            "kill {round}: rows have changed"
        );
        assert_eq!(
            keys(&rows).len(),
            rows.len(),
            "kill {round}: a run is doubled"
        );
        before = rows;
    }
    let all = 7 * repeats;
    let killed_at = before.len();
    assert!(
        (1..all).contains(&killed_at),
        "{killed_at} of {all} rows: the kills fell beside the runs"
    );

    assert!(start(&place).wait().unwrap().code().is_some());
    let rows = place.rows();
    assert_eq!(rows[..killed_at], before);

    let unbroken = Place::new();
    unbroken.manifest(&format!("repeats = {repeats}"));
    let (said, code) = unbroken.run_manifest(&[]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(rows.len(), all);
    assert_eq!(keys(&rows), keys(&unbroken.rows()));
    // Only runs whose worker was killed did not end ok, and they say so.
    for row in rows.iter().filter(|row| row["status"] != "ok") {
        assert!(row["reason"].contains("killed"), "{row:?}");
    }
    let left = std::fs::read_dir(place.path().join("out")).unwrap();
    let left = left.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with(".partial")
    });
    assert!(
        left.count() <= KILLS,
        "what was half written is told by its name"
    );
}

#[test]
fn a_worker_that_is_killed_is_a_row_with_the_reason_and_the_runs_go_on() {
    let place = Place::new();
    place.write(
        "m.toml",
        "[matrix]\nexperiments = ['init-only']\nsizes = ['small']\ndevices = ['flex']\nrepeats = 2\n",
    );
    let mut harness = start(&place);
    let began = Instant::now();
    let worker = loop {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "no worker was seen loading"
        );
        if let Some(worker) = worker_of(&harness).filter(|&worker| is_materialising(worker)) {
            break worker;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    kill(worker);
    assert_eq!(harness.wait().unwrap().code(), Some(3));
    let rows = place.rows();
    let ended: Vec<&str> = rows.iter().map(|row| &*row["status"]).collect();
    // Without a cgroup nobody counts what the kernel killed, and memory is the likeliest reason.
    assert!(
        ended == ["failed", "ok"] || ended == ["oom", "ok"],
        "{ended:?}"
    );
    assert!(
        rows[0]["reason"].contains("in phase materialise"),
        "{}",
        rows[0]["reason"]
    );
    assert_eq!(
        rows[0]["load_seconds"], "",
        "what was not measured is empty"
    );
}

#[test]
fn a_file_that_is_truncated_while_it_is_mapped_fails_that_run_alone_with_the_reason() {
    let place = Place::new();
    place.write(
        "m.toml",
        "[matrix]\nexperiments = ['mmap-zero-copy']\nsizes = ['small']\ndevices = ['flex']\nrepeats = 1\n",
    );
    let mut harness = start(&place);
    let began = Instant::now();
    // Mapped, and read page by page while it is verified.
    loop {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "no worker was seen verifying"
        );
        let words = worker_of(&harness).and_then(last_words);
        if words.is_some_and(|words| words.stage == Stage::Verify) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let path = place.path().join("checkpoints/small-f32/model.safetensors");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(1 << 20).unwrap();
    assert_eq!(harness.wait().unwrap().code(), Some(3));
    let row = &place.rows()[0];
    assert_eq!(row["status"], "failed");
    let reason = &row["reason"];
    assert!(
        reason.contains("signal: 7") && reason.contains("was cut off while it was mapped"),
        "{reason}"
    );
}

#[test]
fn a_killed_preparation_is_made_anew_and_what_it_left_is_cleared_away() {
    let place = Place::new();
    let prepare = ["prepare", "--size", "small", "--format", "safetensors"];
    let mut harness = place
        .command(&prepare)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let folder = place.path().join("checkpoints/small-f32");
    let names = || {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.collect::<Vec<_>>()
    };
    let began = Instant::now();
    while names().is_empty() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "nothing is prepared"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(harness.id());
    harness.wait().unwrap();
    let left = names();
    assert!(
        left.len() == 1 && left[0].starts_with(".partial-"),
        "{left:?}"
    );

    assert!(place.run(&prepare).status.success());
    let mut made = names();
    made.sort();
    assert_eq!(made, ["config.json", "digests.json", "model.safetensors"]);
}

#[test]
fn a_full_disk_ends_the_harness_with_every_whole_row_kept() {
    let place = Place::new();
    place.manifest("repeats = 10");
    // First without a limit, so that checkpoints are there.
    let (said, code) = place.run_manifest(&["--repeats", "1"]);
    assert_eq!(code, 0, "{said}");
    // A limit on the size of files is a disk that takes a part of a write and then refuses, for anyone.
    let program = env!("CARGO_BIN_EXE_harness");
    let script = format!("trap '' XFSZ; ulimit -f 24; exec {program} run m.toml --out out");
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(place.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("could not be recorded") && said.contains("out/"),
        "{said}"
    );
    let before = place.rows();
    assert!((3..70).contains(&before.len()), "{} rows", before.len());
    let text = std::fs::read_to_string(place.out("runs.csv")).unwrap();
    assert!(text.ends_with('\n'), "a half row is left");

    let (said, code) = place.run_manifest(&["--resume"]);
    assert_eq!(code, 0, "{said}");
    let rows = place.rows();
    assert_eq!(rows[..before.len()], before);
    assert_eq!((rows.len(), keys(&rows).len()), (70, 70));
}

#[test]
fn a_folder_that_cannot_be_written_is_told_before_anything_is_run() {
    let place = Place::new();
    place.manifest("");
    let output = place.run(&["run", "m.toml", "--out", "m.toml/out"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("m.toml/out: results cannot be written there"),
        "{said}"
    );
    assert!(
        !place.path().join("checkpoints").exists(),
        "something was prepared"
    );
}

#[test]
fn a_second_harness_on_a_folder_is_refused_and_told_who_holds_it() {
    let place = Place::new();
    place.manifest("repeats = 40");
    let mut first = start(&place);
    let began = Instant::now();
    while place.rows().is_empty() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "nothing is recorded"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    for more in [&["--resume"][..], &[]] {
        let (said, code) = place.run_manifest(more);
        assert_eq!(code, 1, "{said}");
        let holder = format!("held by another harness (process {}, since 2", first.id());
        assert!(said.contains(&holder), "{said}");
    }
    kill(first.id());
    first.wait().unwrap();
    assert!(!place.rows().is_empty());
    // The lock dies with its holder, however that ends.
    let (said, code) = place.run_manifest(&["--resume", "--repeats", "1"]);
    assert_eq!(code, 0, "{said}");
}

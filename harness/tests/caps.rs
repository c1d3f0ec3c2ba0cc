//! Host caps: enforced by the kernel, and the smallest one that a technique survives in.
#![cfg(target_os = "linux")]

mod common;

use std::collections::HashMap;

use common::{Place, TINY, number};

/// 167 MB: large against every constant, and loaded in a second.
const SIZE: &str = "v16384-c256-e512-l8-h8";
const MIB: u64 = 1 << 20;

fn manifest(experiments: &str, more: &str) -> Place {
    let place = Place::new();
    place.write(
        "m.toml",
        &format!(
            "[matrix]\nexperiments = {experiments}\nsizes = ['{SIZE}']\ndevices = ['flex']\ncache = ['cold']\n{more}\n"
        ),
    );
    place
}

#[test]
fn a_run_over_its_cap_is_oom_with_what_was_asked_for_and_one_within_it_is_ok() {
    let place = manifest(
        "['naive', 'mmap-assign']",
        "host_caps = ['none', '1.5x', '64MiB']\nrepeats = 1",
    );
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 0, "running out of a cap is an answer\n{said}");
    let rows = place.rows();
    assert_eq!(rows.len(), 6);
    for row in &rows {
        let cap = row["host_cap_bytes"].parse::<u64>().ok();
        let mechanism = &*row["host_cap_mechanism"];
        assert_eq!(cap.is_some(), !mechanism.is_empty(), "{row:?}");
        let survives = match (&*row["experiment"], cap) {
            (_, None) => true,
            ("mmap-assign", Some(cap)) => cap > number(row, "model_bytes"),
            _ => false,
        };
        match survives {
            true => assert_eq!(
                (&*row["status"], &*row["verified"]),
                ("ok", "true"),
                "{row:?}"
            ),
            false => {
                assert_eq!(row["status"], "oom", "{row:?}");
                let reason = &row["reason"];
                assert!(reason.contains("over its host cap of"), "{reason}");
                assert!(reason.contains("in phase"), "{reason}");
                assert!(reason.contains("of heap asked for"), "{reason}");
                assert_eq!(row["host_heap_peak_bytes"], "");
            }
        }
    }
    let machine = std::fs::read_to_string(place.out("machine.toml")).unwrap();
    assert!(
        machine.contains("host_caps = \"") && machine.contains("counts"),
        "{machine}"
    );
}

#[test]
fn without_cgroups_a_cap_refuses_allocations_and_the_refused_one_is_told() {
    let place = manifest("['naive']", "");
    assert!(place.run(&["prepare", "--size", SIZE]).status.success());
    let folder = format!("checkpoints/{SIZE}-f32");
    let (checkpoint, digests) = (
        format!("{folder}/model.safetensors"),
        format!("{folder}/digests.json"),
    );
    let worker = |experiment: &str, cap_bytes: u64| {
        let run = format!(
            r#"{{"experiment": "{experiment}", "size": "{SIZE}", "device": "flex", "dtype": "f32", "cache": "warm",
               "tuning": {{"staging_bytes": 16777216, "threads": 2, "queue_depth": 8, "resident_layers": 2}},
               "checkpoint": "{checkpoint}", "digests": "{digests}", "host_cap_bytes": {cap_bytes}}}"#
        );
        place.run(&["worker", &run])
    };
    // 1.2 times the model: mapped pages are no data, and a second copy of the model is.
    let cap = 200 * MIB;
    let output = worker("mmap-assign", cap);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("\"status\":\"ok\""), "{said}");
    let output = worker("naive", cap);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("memory allocation of") && said.contains("failed"),
        "{said}"
    );
}

#[test]
fn the_smallest_cap_is_found_to_a_step_and_the_same_again() {
    let place = manifest(
        "['naive', 'mmap-assign']",
        "host_caps = ['smallest']\nrepeats = 2",
    );
    let output = place.run(&["minmem", "m.toml", "--out", "out"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("smallest cap survived"), "{said}");
    let rows = place.rows();
    let step = 8 * MIB;
    let mut smallest: HashMap<(&str, &str), u64> = HashMap::new();
    for row in rows
        .iter()
        .filter(|row| row["status"] == "ok" && !row["host_cap_bytes"].is_empty())
    {
        let cap = number(row, "host_cap_bytes");
        assert_eq!(cap % step, 0);
        let known = smallest
            .entry((&row["experiment"], &row["repeat"]))
            .or_insert(cap);
        *known = cap.min(*known);
    }
    let model = number(&rows[0], "model_bytes");
    let naive = smallest[&("naive", "1")];
    let mmap = smallest[&("mmap-assign", "1")];
    assert!(
        (2 * model..2 * model + 2 * step).contains(&naive),
        "naive: {naive} of {model}"
    );
    assert!(
        (model..model + 2 * step).contains(&mmap),
        "mmap-assign: {mmap} of {model}"
    );
    for experiment in ["naive", "mmap-assign"] {
        let [first, second] = ["1", "2"].map(|repeat| smallest[&(experiment, repeat)]);
        assert!(
            first.abs_diff(second) <= step,
            "{experiment}: {first}, then {second}"
        );
        // One step below it died: every probe is a row.
        let below = (first - step).to_string();
        let died = rows.iter().find(|row| {
            row["experiment"] == experiment
                && row["repeat"] == "1"
                && row["host_cap_bytes"] == below
        });
        assert_eq!(died.unwrap()["status"], "oom");
    }
    for name in [
        "report.md",
        &format!("plots/smallest-cap-flex-{SIZE}-cold.svg"),
    ] {
        assert!(place.out(name).exists(), "{name}");
    }

    let output = place.run(&["minmem", "m.toml", "--out", "out", "--resume"]);
    assert!(output.status.success());
    assert_eq!(
        place.rows(),
        rows,
        "a finished search is not searched again"
    );
}

#[test]
fn a_manifest_that_searches_for_nothing_is_refused() {
    let place = Place::new();
    place.manifest("");
    let output = place.run(&["minmem", "m.toml", "--out", "out"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("host_caps = [\"smallest\"]"), "{said}");
}

#[test]
fn a_cold_cache_is_cold_and_a_warm_one_warm_and_what_cannot_be_reached_is_skipped() {
    let place = Place::new();
    place.manifest("cache = ['warm', 'cold']\nrepeats = 1");
    let (said, code) = place.run_manifest(&["--only", "naive,per-tensor", "--size", SIZE]);
    assert_eq!(code, 0, "{said}");
    for row in place.rows() {
        let fraction: f64 = row["resident_fraction"].parse().unwrap();
        match &*row["cache"] {
            "warm" => assert!(fraction >= 0.99, "{row:?}"),
            _ => assert!(fraction <= 0.01, "{row:?}"),
        }
        assert_eq!(row["status"], "ok");
    }

    // Pages that somebody has mapped stay in the cache.
    let path = place
        .path()
        .join(format!("checkpoints/{SIZE}-f32/model.safetensors"));
    let file = std::fs::File::open(path).unwrap();
    // SAFETY: nobody writes to the file.
    let mapped = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    let sum: u64 = mapped
        .iter()
        .step_by(4096)
        .map(|&byte| u64::from(byte))
        .sum();
    let (said, code) = place.run_manifest(&["--only", "naive", "--size", SIZE]);
    assert_eq!(code, 0, "a skipped run is no failure\n{said}");
    let rows = place.rows();
    let cold = rows.iter().find(|row| row["cache"] == "cold").unwrap();
    assert_eq!(cold["status"], "skipped");
    assert!(
        cold["reason"].contains("could not be made cold: ")
            && cold["reason"].contains("has it mapped")
    );
    let fraction: f64 = cold["resident_fraction"].parse().unwrap();
    assert!(fraction > 0.9, "{fraction}");
    assert_eq!(
        rows.iter().find(|row| row["cache"] == "warm").unwrap()["status"],
        "ok"
    );
    assert!(sum > 0);
}

#[test]
fn a_cap_that_leaves_no_room_for_a_warm_cache_skips_the_run_and_says_what_to_do() {
    let place = Place::new();
    place.manifest("repeats = 1\nhost_caps = ['32MiB']");
    let (said, code) = place.run_manifest(&["--only", "mmap-assign", "--size", SIZE]);
    assert_eq!(code, 0, "{said}");
    let rows = place.rows();
    // Where there are no cgroups, file pages do not count.
    if rows[0]["host_cap_mechanism"] != "rlimit-data" {
        assert_eq!(rows[0]["status"], "skipped");
        assert!(rows[0]["reason"].contains("count against the host cap: use cold"));
    }
    let (_, code) = place.run_manifest(&["--only", "mmap-assign", "--size", TINY]);
    assert_eq!(code, 0);
    assert_eq!(place.rows()[0]["status"], "ok", "a tiny model fits");
}

//! What bad input gets: one clear message, the documented exit code, and nothing run.

mod common;

use common::{Place, TINY};

fn assert_usage_error(place: &Place, args: &[&str], expected: &[&str]) {
    let output = place.run(args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for expected in expected {
        assert!(said.contains(expected), "{said}\nshould contain {expected}");
    }
    assert!(!place.path().join("out").exists(), "something was run");
    assert!(
        !place.path().join("checkpoints").exists(),
        "something was prepared"
    );
}

#[test]
fn a_wrong_manifest_is_refused_with_file_line_and_the_nearest_valid_word() {
    let place = Place::new();
    let cases = [
        (
            "experiments = ['naiv']\nsizes = ['small']",
            "m.toml:2: unknown experiment `naiv`; did you mean `naive`?",
        ),
        (
            "experiments = ['all']\nsizes = ['mediun']",
            "m.toml:3: unknown size `mediun`",
        ),
        (
            "experiments = ['all']\nsizes = ['small']\ndevices = ['cpu']",
            "m.toml:4: unknown device `cpu`",
        ),
        (
            "experiments = ['all']\nsizes = ['small']\nrepeat = 2",
            "m.toml:4: unknown key `repeat`; did you mean `repeats`?",
        ),
    ];
    for (matrix, expected) in cases {
        place.write("m.toml", &format!("[matrix]\n{matrix}\n"));
        assert_usage_error(&place, &["run", "m.toml", "--out", "out"], &[expected]);
    }
    assert_usage_error(
        &place,
        &["run", "absent.toml", "--out", "out"],
        &["absent.toml", "cannot be read"],
    );
}

#[test]
fn a_manifest_of_the_house_is_found_without_a_checkout_and_a_wrong_name_gets_the_nearest() {
    let place = Place::new();
    let output = place.run(&["run", "quick", "--device", "flex", "--dry-run"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("runs:"), "{said}");
    assert_usage_error(
        &place,
        &["run", "quik", "--out", "out"],
        &[
            "no manifest is called `quik`; did you mean `quick`?",
            "A look at everything",
            "reproduce",
        ],
    );
}

#[test]
fn in_a_checkout_the_same_folders_are_meant_from_everywhere() {
    let place = Place::new();
    std::fs::create_dir_all(place.path().join("harness/manifests")).unwrap();
    std::fs::create_dir_all(place.path().join("crates/some")).unwrap();
    place.write(
        "harness/manifests/own.toml",
        &format!("# Our own.\n[matrix]\nexperiments = ['naive']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n"),
    );
    let inside = place.path().join("crates/some");
    let run = |args: &[&str]| place.command(args).current_dir(&inside).output().unwrap();
    let output = run(&["run", "own", "--machine", "box"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("[1/1] naive"), "{said}");
    for made in ["runs/box/own/runs.csv", "runs/box/own/plots", "checkpoints"] {
        assert!(place.path().join(made).exists(), "{made}");
    }
    assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 0);
    let output = run(&["explain", "naive"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("recorded in ../../runs/box/own/runs.csv"),
        "{said}"
    );
    let output = run(&["run", "quick"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("  own  Our own."), "{said}");
}

#[test]
fn wrong_arguments_are_refused() {
    let place = Place::new();
    place.manifest("");
    let run = |more: &[&'static str]| [&["run", "m.toml", "--out", "out"], more].concat();
    assert_usage_error(
        &place,
        &run(&["--only", "naiv"]),
        &["did you mean `naive`?"],
    );
    assert_usage_error(
        &place,
        &run(&["--device", "vulcan"]),
        &["did you mean `vulkan`?"],
    );
    assert_usage_error(&place, &run(&["--size", "tiny"]), &["unknown size `tiny`"]);
    assert_usage_error(
        &place,
        &run(&["--repeats", "0"]),
        &["repeats is 0: it must be from 1 to 10000"],
    );
    for no_technique in ["plain-read", "floor", "init-only"] {
        let generate = ["generate", "--checkpoint", "m.pth", "--tokens", "1"];
        assert_usage_error(
            &place,
            &[&generate[..], &["--experiment", no_technique]].concat(),
            &["--experiment: ", " loads no model: "],
        );
    }
}

#[test]
fn a_disk_without_room_is_told_before_anything_is_written() {
    let place = Place::new();
    place.write(
        "m.toml",
        "[matrix]\nexperiments = ['naive']\nsizes = ['small']\ndevices = ['flex']\n[limits]\nmin_free_disk = '900000GiB'\n",
    );
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("the checkpoints need 622 MiB") && said.contains("the disk has"),
        "{said}"
    );
    assert!(!place.path().join("checkpoints").exists());
    assert!(!place.path().join("out").exists());
}

#[test]
fn a_device_that_is_not_there_is_a_row_with_the_reason() {
    let place = Place::new();
    place.manifest("repeats = 1");
    let (said, code) = place.run_manifest(&["--only", "naive", "--device", "flex,vulkan:9"]);
    assert_eq!(code, 0, "{said}");
    let rows = place.rows();
    let skipped = rows.iter().find(|row| row["device"] == "vulkan:9").unwrap();
    assert_eq!(skipped["status"], "skipped");
    assert!(skipped["reason"].contains("this machine has no device vulkan:9"));
    assert_eq!(
        skipped["load_seconds"], "",
        "what was not measured is empty"
    );
}

#[test]
fn list_and_doctor_tell_every_experiment_size_and_device() {
    let place = Place::new();
    for (command, expected) in [
        ("list", vec!["mmap-assign", "1638022400", "flex", "cuda"]),
        ("doctor", vec!["burn", "0.21.0", "VmHWM", "flex"]),
    ] {
        let output = place.run(&[command]);
        assert!(output.status.success());
        let said = String::from_utf8(output.stdout).unwrap();
        expected
            .iter()
            .for_each(|expected| assert!(said.contains(expected), "{said}"));
    }
}

#[test]
fn list_and_doctor_are_one_json_object_where_that_is_asked_for() {
    let place = Place::new();
    let object = |command| {
        let output = place.run(&[command, "--json"]);
        assert!(output.status.success());
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let list = object("list");
    assert_eq!(list["sizes"][0]["name"], "small");
    let parameters = list["sizes"][0]["parameters"].as_u64().unwrap();
    assert_eq!(list["sizes"][0]["f32_bytes"], 4 * parameters);
    assert_eq!(list["devices"][0]["name"], "flex");
    assert_eq!(list["experiments"][0]["name"], "init-only");
    let doctor = object("doctor");
    assert!(doctor["machine"]["memory_bytes"].is_u64(), "{doctor}");
    assert!(doctor["instruments"][0]["works"].as_bool().unwrap());
}

#[test]
fn the_version_names_a_commit_and_shells_and_man_are_told_the_commands() {
    let place = Place::new();
    let said = |args: &[&str]| String::from_utf8(place.run(args).stdout).unwrap();
    let version = said(&["--version"]);
    assert!(version.starts_with("harness 0.1.0"), "{version}");
    assert!(said(&["completions", "bash"]).contains("regenerate"));
    assert!(said(&["man"]).contains("harness\\-publish"));
    assert!(said(&["man", "run"]).contains("dry\\-run"));
    assert_usage_error(&place, &["man", "rum"], &["did you mean `run`?"]);
}

#[test]
fn a_dry_run_prints_the_plan_and_leaves_no_trace() {
    let place = Place::new();
    place.manifest("");
    let output = place.run(&["run", "m.toml", "--dry-run"]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("runs:   21") && said.contains("disk:"),
        "{said}"
    );
    assert_eq!(
        std::fs::read_dir(place.path()).unwrap().count(),
        1,
        "only the manifest is there"
    );
}

#[cfg(unix)]
#[test]
fn a_small_file_that_is_a_pipe_or_has_no_end_is_refused_by_name_and_not_waited_for() {
    let place = Place::new();
    let tiny = common::fixture("tiny.pth");
    let pipe = place.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(pipe).status();
    assert!(made.unwrap().success());
    place.write("large", &" ".repeat(70 << 20));
    let model = ["--checkpoint", &*tiny, "--size", common::TINY];
    for (path, why) in [
        ("./pipe", "it is a pipe"),
        ("/dev/zero", "it is a device"),
        ("./large", "is larger than"),
    ] {
        let layout = [&["generate", "--layout", path, "--tokens", "1"], &model[..]].concat();
        let tokenizer = [
            &["generate", "--tokenizer", path, "--prompt", "a"],
            &model[..],
        ]
        .concat();
        let manifest = vec!["run", path, "--out", "out"];
        let mut all = vec![layout, manifest];
        if cfg!(feature = "text") {
            all.push(tokenizer);
        }
        for args in all {
            let output = place.run(&args);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{args:?}");
            assert!(
                said.contains(path) && said.contains(why),
                "{args:?}: {said}"
            );
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_reader_that_goes_away_changes_no_exit_code_and_a_full_disk_is_an_error() {
    use std::process::Stdio;
    let place = Place::new();
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    for (args, code) in [
        (&["list"][..], 0),
        (&["run", "absent.toml"], 2),
        (&["--help"], 0),
    ] {
        // The reading end is closed before anything is written.
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = place.command(args);
        let mut child = command
            .stdout(writer)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        drop((command, reader));
        assert_eq!(child.wait().unwrap().code(), Some(code), "{args:?}");

        let output = place.command(args).stdout(full()).output().unwrap();
        let expected = if code == 0 { 1 } else { code };
        assert_eq!(output.status.code(), Some(expected), "{args:?}");
        if code == 0 {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.starts_with("error: "), "{said}");
        }
        let to_errors = place.command(args).stderr(full()).output().unwrap();
        assert_eq!(to_errors.status.code(), Some(code), "{args:?}");
    }
}

//! The CUDA path on a simulated driver: CubeCL, Burn, libnvrtc and every copy are real, kernels are compiled and not executed.
#![cfg(target_os = "linux")]

mod common;
#[path = "../../crates/simulated-cuda/machine.rs"]
mod machine;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::{Command, Output};

use common::{Place, Row, TINY, fixture, number};
use machine::Simulated;

/// Large enough that pieces, tables and layers differ in size.
const SMALL: &str = "v5000-c128-e256-l6-h4";

/// A manifest of these techniques for one model on the simulated GPU.
fn manifest(place: &Place, experiments: &str, size: &str, more: &str) {
    let text = format!(
        "[matrix]\nexperiments = [{experiments}]\nsizes = ['{size}']\ndevices = ['cuda']\nrepeats = 1\n{more}\n"
    );
    place.write("m.toml", &text);
}

fn command(gpu: &Simulated, place: &Place, args: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = place.command(args);
    gpu.offer(&mut command, settings);
    command
}

fn run(gpu: &Simulated, place: &Place, settings: &[(&str, &str)]) -> Output {
    let mut command = command(gpu, place, &["run", "m.toml", "--out", "out"], settings);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn by_experiment(rows: &[Row]) -> HashMap<&str, &Row> {
    rows.iter().map(|row| (&*row["experiment"], row)).collect()
}

/// What a manifest gives a load for pieces on their way, where it says nothing.
const MOST_LOCKED: u64 = 16 << 20;

fn use_of<'a>(command: &'a str, checkpoint: &'a str) -> [&'a str; 9] {
    [
        command,
        "--checkpoint",
        checkpoint,
        "--size",
        TINY,
        "--tokens",
        "1,2,3",
        "--device",
        "cuda",
    ]
}

/// Whether the device that `list` tells of can be used, and what it says.
fn cuda_of(output: &Output) -> (bool, String) {
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let devices = listed["devices"].as_array().unwrap();
    let cuda = devices
        .iter()
        .find(|device| device["name"] == "cuda")
        .unwrap();
    let said = cuda["description"].as_str().or(cuda["reason"].as_str());
    (cuda["usable"] == true, said.unwrap_or_default().to_owned())
}

#[test]
fn a_simulated_device_is_called_so_and_no_chart_or_report_is_made_of_it() {
    let Some(gpu) = Simulated::machine() else {
        return;
    };
    let place = Place::new();
    manifest(&place, "'streamed'", TINY, "");
    let output = run(&gpu, &place, &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("simulated cuda"), "{said}");
    assert!(
        !said.contains("charts:") && !said.contains("report:"),
        "{said}"
    );
    let rows = place.rows();
    assert!(rows[0]["driver"].starts_with("simulated GPU"), "{rows:?}");
    for shown in ["report.md", "report.html", "plots"] {
        assert!(!place.out(shown).exists(), "{shown}");
    }
    for command in [
        &["plot", "out"][..],
        &["report", "out"],
        &["publish", "out", "--force"],
    ] {
        let refused = place.run(command);
        assert!(!refused.status.success());
        let why = text(&refused.stderr);
        assert!(why.contains("simulated device"), "{why}");
    }
}

/// All techniques: bytes are right, and contracts hold, whenever the driver makes its copies.
fn all_keep_their_promises(experiments: &str, size: &str, copies: &str) {
    let Some(gpu) = Simulated::machine() else {
        return;
    };
    let place = Place::new();
    manifest(&place, experiments, size, "");
    let output = run(&gpu, &place, &[("COPIES", copies)]);
    let rows = place.rows();
    let bad: Vec<_> = rows
        .iter()
        .filter(|row| row["status"] != "ok" && row["status"] != "skipped")
        .map(|row| format!("{}: {}", row["experiment"], row["reason"]))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let measured: Vec<&Row> = rows.iter().filter(|row| row["status"] == "ok").collect();
    assert!(measured.len() > 15, "{} were measured", measured.len());
    // Initial weights are kernels' work, which is not done here; a plain read loads nothing.
    let unread: Vec<&str> = measured
        .iter()
        .filter(|row| {
            !row["verified_by"].contains("digests") && !row["verified_by"].contains("rounded")
        })
        .map(|row| &*row["experiment"])
        .collect();
    assert!(
        unread
            .iter()
            .all(|name| ["init-only", "plain-read"].contains(name)),
        "not compared with the checkpoint: {unread:?}"
    );
    let broken: Vec<_> = measured
        .iter()
        .filter(|row| row["contract_held"] != "true")
        .map(|row| {
            let of = |column: &str| row[column].clone();
            format!(
                "{}: host {} of {}, device {} of {}, pools {} of {}",
                row["experiment"],
                of("host_heap_peak_bytes"),
                of("host_contract_bytes"),
                of("device_in_use_peak_bytes"),
                of("device_contract_bytes"),
                of("device_reserved_peak_bytes"),
                of("device_reserved_contract_bytes")
            )
        })
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
    for row in measured {
        let locked = number(row, "host_locked_peak_bytes");
        assert!(
            locked <= MOST_LOCKED,
            "{}: {locked} are locked",
            row["experiment"]
        );
    }
}

#[test]
fn every_technique_keeps_its_promises_where_copies_are_made_at_the_call() {
    // Rows of 512 bytes: where they are shorter, Burn's own stores have CUDA pad them, and only a kernel takes that away.
    all_keep_their_promises("'all'", "v257-c64-e128-l2-h4", "call");
}

#[test]
fn every_technique_keeps_its_promises_where_copies_are_made_as_late_as_cuda_allows() {
    all_keep_their_promises("'all'", SMALL, "late");
}

#[test]
fn every_technique_keeps_its_promises_where_rows_are_no_multiple_of_512_bytes() {
    // Burn's own stores have each row begin at a multiple of 512, and only a kernel takes that away again.
    const OURS: &str = "'naive', 'host-then-device', 'sequential', 'meta-device', 'mmap-assign', 'per-tensor', 'streamed', \
                        'parallel-read', 'parallel-read:direct', 'parallel-read:uring', 'sharded', 'half', 'half:bf16', \
                        'quantized', 'prequantized', 'layer-offload', 'init-only'";
    // Rows of 1600 bytes, and of 520, of which 32 is no divisor either.
    for size in ["v3000-c64-e400-l3-h8", "v20011-c64-e130-l3-h5"] {
        all_keep_their_promises(OURS, size, "late");
    }
}

#[test]
fn what_is_recorded_of_the_device_is_what_its_driver_did() {
    let Some(gpu) = Simulated::machine() else {
        return;
    };
    let place = Place::new();
    // Rows of 200 bytes: on CUDA, Burn itself would begin each at a multiple of 512.
    manifest(
        &place,
        "'init-only', 'naive', 'streamed'",
        "v5000-c128-e50-l2-h2",
        "",
    );
    let log = place.path().join("log");
    let output = run(&gpu, &place, &[("LOG", log.to_str().unwrap())]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows = place.rows();
    let rows = by_experiment(&rows);
    let model = number(rows["streamed"], "model_bytes");
    for (experiment, times) in [("init-only", 1), ("streamed", 1), ("naive", 2)] {
        let peak = number(rows[experiment], "device_in_use_peak_bytes");
        // Each tensor begins at a multiple of 512 bytes.
        let least = times * model..times * model + (64 << 10);
        assert!(least.contains(&peak), "{experiment}: {peak} of {model}");
    }
    // Between the two looks at its marks, the driver saw what the record says.
    let log = std::fs::read_to_string(log).unwrap();
    let mut by_process: HashMap<&str, Vec<&str>> = HashMap::new();
    for line in log.lines() {
        let (process, what) = line.split_once(' ').unwrap();
        by_process.entry(process).or_default().push(what);
    }
    let mut seen: Vec<(u64, u64)> = Vec::new();
    for lines in by_process.values() {
        let Some(start) = lines.iter().position(|line| line.starts_with("marked ")) else {
            continue;
        };
        let used = |line: &&str| {
            let (_, used) = line.split_once(" used=")?;
            used.parse::<u64>().ok()
        };
        let before = used(&lines[start]).unwrap();
        let read = lines
            .iter()
            .rposition(|line| line.starts_with("told "))
            .unwrap();
        let peak = lines[start..read].iter().filter_map(used).max().unwrap();
        let locked = |line: &&str| {
            let (_, all) = line.split_once("locked bytes=")?.1.split_once(" all=")?;
            all.parse::<u64>().ok()
        };
        let locked_before = lines[..start].iter().rev().find_map(locked).unwrap_or(0);
        let locked_peak = lines[start..read].iter().filter_map(locked).max();
        let locked_peak = locked_peak.unwrap_or(locked_before);
        seen.push((peak - before, locked_peak - locked_before));
    }
    let recorded = |row: &&Row| {
        let of = |column| number(row, column);
        (
            of("device_pool_used_peak_bytes"),
            of("host_locked_peak_bytes"),
        )
    };
    let mut recorded: Vec<(u64, u64)> = rows.values().map(recorded).collect();
    seen.sort_unstable();
    recorded.sort_unstable();
    assert_eq!(seen, recorded);
    assert!(number(rows["streamed"], "host_locked_peak_bytes") > 0);
}

#[test]
fn a_device_without_room_is_out_of_memory_for_every_technique() {
    // Otherwise such runs are skipped, as what is free is known.
    let Some(gpu) = Simulated::machine().map(Simulated::without_management) else {
        return;
    };
    let place = Place::new();
    manifest(&place, "'all'", SMALL, "");
    // The model has 28 MiB; the runtime's first page takes eight.
    run(
        &gpu,
        &place,
        &[("MEMORY_BYTES", &(20u64 << 20).to_string())],
    );
    for row in place.rows() {
        // What is smaller fits.
        let fits = ["quantized", "prequantized", "half", "half:bf16"];
        if row["status"] == "skipped" || fits.contains(&&*row["experiment"]) {
            continue;
        }
        assert_eq!(
            row["status"], "oom",
            "{}: {}",
            row["experiment"], row["reason"]
        );
    }
}

#[test]
fn a_call_that_fails_never_ends_ok_with_other_bytes_and_has_its_reason() {
    let Some(gpu) = Simulated::machine() else {
        return;
    };
    let place = Place::new();
    manifest(
        &place,
        "'streamed', 'parallel-read', 'mmap-assign'",
        TINY,
        "",
    );
    let faults = [
        "alloc:2",
        "alloc:9",
        "copy:3",
        "copy:20",
        "sync:2",
        "sync:5",
        "lock:1",
        "lock:2",
        "launch:2",
        "load:1",
        "alloc:5:sticks",
        "copy:9:sticks",
        "sync:3:sticks",
    ];
    for fault in faults {
        let started = std::time::Instant::now();
        run(&gpu, &place, &[("FAULTS", fault)]);
        for row in place.rows() {
            let (name, status, reason) = (&row["experiment"], &*row["status"], &row["reason"]);
            // What went well in spite of it was compared, byte by byte.
            assert_eq!(status == "ok", row["verified"] == "true", "{fault}: {name}");
            assert!(status == "ok" || !reason.is_empty(), "{fault}: {name}");
            assert_ne!(status, "timeout", "{fault}: {name}: {reason}");
        }
        let seconds = started.elapsed().as_secs();
        assert!(seconds < 45, "{fault}: three runs took {seconds} s");
    }
}

/// `SIMULATED_FAILURES=50` makes 50 rounds of all techniques: about a thousand runs.
#[test]
fn failures_at_random_calls_end_soon_with_a_reason_and_never_ok_with_other_bytes() {
    let Some(gpu) = Simulated::machine() else {
        return;
    };
    let rounds = std::env::var("SIMULATED_FAILURES").map_or(2, |rounds| rounds.parse().unwrap());
    let (mut ended, mut wrong) = (0, Vec::new());
    for round in 0..rounds {
        let chance = |of: u64, what: &str| {
            let mut hasher = DefaultHasher::new();
            (round, what).hash(&mut hasher);
            hasher.finish() % of
        };
        let calls = ["alloc", "lock", "copy", "launch", "sync", "load"];
        let ends = ["", "", "", "", ":sticks", ":sticks", ":sticks", ":hangs"];
        let (call, end) = (
            calls[chance(6, "call") as usize],
            ends[chance(8, "end") as usize],
        );
        let fault = format!("{call}:{}{end}", 1 + chance(40, "nth"));
        let place = Place::new();
        // What hangs takes its time.
        let experiments = match end {
            ":hangs" => "'naive', 'streamed'",
            _ => "'all'",
        };
        manifest(&place, experiments, TINY, "[limits]\ntimeout_seconds = 20");
        run(&gpu, &place, &[("FAULTS", &fault)]);
        for row in place.rows() {
            let (status, reason) = (&*row["status"], &row["reason"]);
            let is_right = match status {
                "ok" => row["verified"] == "true",
                // What hangs in a wait has no other end.
                "timeout" => end == ":hangs",
                _ => !reason.is_empty(),
            };
            ended += 1;
            if !is_right {
                wrong.push(format!(
                    "{fault}: {}: {status}: {reason}",
                    row["experiment"]
                ));
            }
        }
    }
    println!("{ended} runs");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(ended >= 2 * rounds, "{ended} runs");
}

#[test]
fn a_device_that_hangs_is_a_timeout() {
    let Some(gpu) = Simulated::machine() else {
        return;
    };
    let place = Place::new();
    manifest(&place, "'streamed'", TINY, "[limits]\ntimeout_seconds = 5");
    let output = run(&gpu, &place, &[("FAULTS", "sync:4:hangs")]);
    assert!(!output.status.success());
    assert_eq!(place.rows()[0]["status"], "timeout");
}

#[test]
fn a_device_is_usable_only_where_a_kernel_is_compiled_loaded_and_launched_and_else_says_why() {
    let Some(gpu) = Simulated::machine() else {
        return;
    };
    let place = Place::new();
    let list = |settings: &[(&str, &str)], toolkit: Option<&str>| {
        let mut command = command(&gpu, &place, &["list", "--json"], settings);
        if let Some(toolkit) = toolkit {
            // The linker still finds libnvrtc.
            command.env("CUDA_PATH", toolkit);
        }
        cuda_of(&command.output().unwrap())
    };
    let (usable, what) = list(&[], None);
    assert!(usable && what.starts_with("simulated GPU"), "{what}");

    std::fs::create_dir(place.path().join("empty")).unwrap();
    for (settings, toolkit, needles) in [
        (
            &[("FAULTS", "load:1")][..],
            None,
            ["older than libnvrtc", "just setup cuda"],
        ),
        (
            &[("DRIVER", "12040")],
            None,
            ["older than libnvrtc", "update the driver"],
        ),
        (
            &[("CAPABILITY", "35")],
            None,
            ["compute capability 3.5", "just setup cuda"],
        ),
        (
            &[("FAULTS", "launch:1")],
            None,
            ["cannot be launched", "LAUNCH_FAILED"],
        ),
        (&[("FAULTS", "launch:1:hangs")], None, ["20 s", "hangs"]),
        (&[], Some("empty"), ["cuda_runtime.h", "just setup cuda"]),
    ] {
        let (usable, reason) = list(settings, toolkit);
        assert!(!usable, "{settings:?}");
        for needle in needles {
            assert!(reason.contains(needle), "{settings:?}: {reason}");
        }
    }
}

#[test]
fn a_model_in_use_on_a_device_that_fails_is_an_error_with_its_reason() {
    let Some(gpu) = Simulated::machine() else {
        return;
    };
    let place = Place::new();
    let tiny = fixture("tiny.pth");
    let generate = use_of("generate", &tiny);
    for fault in ["alloc:6:sticks", "launch:4", "copy:8:sticks"] {
        let mut command = command(&gpu, &place, &generate, &[("FAULTS", fault)]);
        let output = command.output().unwrap();
        assert!(
            !output.status.success(),
            "{fault}: {}",
            text(&output.stdout)
        );
        assert!(text(&output.stderr).contains("error: "), "{fault}");
    }
}

#[test]
fn a_dtype_that_a_gpu_cannot_compute_in_is_skipped_with_what_is_needed() {
    let Some(gpu) = Simulated::machine() else {
        return;
    };
    let place = Place::new();
    manifest(&place, "'half', 'half:bf16'", TINY, "");
    let output = run(&gpu, &place, &[("CAPABILITY", "75")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows = place.rows();
    let rows = by_experiment(&rows);
    assert_eq!(rows["half"]["status"], "ok", "{rows:?}");
    assert_eq!(rows["half:bf16"]["status"], "skipped", "{rows:?}");
    let reason = &rows["half:bf16"]["reason"];
    assert!(reason.contains("7.5") && reason.contains("8.0"), "{reason}");
}

#[test]
fn every_kernel_of_loading_forward_and_training_compiles_for_each_generation_of_gpus() {
    let Some(gpu) = Simulated::machine() else {
        return;
    };
    for capability in ["75", "80", "90", "120"] {
        let place = Place::new();
        manifest(
            &place,
            "'naive', 'streamed', 'quantized', 'layer-offload'",
            TINY,
            "",
        );
        let output = run(&gpu, &place, &[("CAPABILITY", capability)]);
        assert!(
            output.status.success(),
            "sm_{capability}: {}",
            text(&output.stderr)
        );
        if cfg!(feature = "train") {
            let tiny = fixture("tiny.pth");
            let train = use_of("finetune", &tiny);
            let output = command(&gpu, &place, &train, &[("CAPABILITY", capability)])
                .output()
                .unwrap();
            // No kernel runs, so that nothing is learnt; all of them are compiled and launched.
            let said = text(&output.stderr);
            assert!(
                said.contains("the loss did not fall"),
                "sm_{capability}: {said}"
            );
        }
    }
}

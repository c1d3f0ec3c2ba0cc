//! A small reproduction end to end: real processes, real files, the software Vulkan driver.

mod common;

use common::{Place, TINY, fixture, has_vulkan, number};

#[test]
fn every_technique_ends_ok_and_verified_with_its_contract_held_and_everything_is_written() {
    let place = Place::new();
    place.manifest("repeats = 2");
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 0, "{said}");
    let rows = place.rows();
    assert_eq!(rows.len(), 2 * 7);
    for row in &rows {
        assert_eq!(
            (&*row["status"], &*row["verified"], &*row["contract_held"]),
            ("ok", "true", "true"),
            "{row:?}"
        );
        assert!(!row["first_forward_seconds"].is_empty());
        let timeline = place
            .out("timelines")
            .join(format!("{}.csv", row["run_id"]));
        assert!(timeline.exists());
    }
    for file in ["machine.toml", "summary.csv", "summary.md"] {
        assert!(place.out(file).exists(), "{file}");
    }
    for chart in ["peaks", "load-time", "timeline"] {
        for extension in ["svg", "png"] {
            assert!(
                place
                    .out(&format!("plots/{chart}-flex-{TINY}.{extension}"))
                    .exists()
            );
        }
    }
}

#[test]
fn a_file_that_pytorch_saved_is_loaded_by_every_technique_with_pytorchs_logits() {
    let place = Place::new();
    place.manifest("repeats = 1");
    let (checkpoint, logits) = (fixture("tiny.pth"), fixture("tiny-logits.safetensors"));
    let file = [
        "--checkpoint",
        &checkpoint,
        "--size",
        TINY,
        "--reference",
        &logits,
        "--save-logits",
    ];
    let device = if has_vulkan() { "flex,vulkan" } else { "flex" };
    let (said, code) = place.run_manifest(&[&file[..], &["--device", device]].concat());
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("2 mask buffers of the checkpoint are no weights"),
        "{said}"
    );
    for row in place.rows() {
        assert_eq!(
            (&*row["status"], &*row["verified"]),
            ("ok", "true"),
            "{row:?}"
        );
        assert!(!row["first_forward_seconds"].is_empty(), "{row:?}");
        let format = match &*row["experiment"] {
            "init-only" => "",
            "per-tensor" => "per-tensor",
            _ => "pth",
        };
        assert_eq!(row["format"], format);
    }
}

#[test]
fn other_logits_than_pytorchs_are_found_out() {
    let place = Place::new();
    place.manifest("repeats = 1");
    // The prepared model of the same size has other weights than the fixture, so its logits are wrong ones.
    let (_, code) = place.run_manifest(&[
        "--only",
        "naive",
        "--reference",
        &fixture("tiny-logits.safetensors"),
    ]);
    assert_eq!(code, 3);
    let rows = place.rows();
    assert_eq!(
        (&*rows[0]["status"], &*rows[0]["verified"]),
        ("failed", "false")
    );
    assert!(
        rows[0]["reason"].contains("logits differ"),
        "{}",
        rows[0]["reason"]
    );
}

#[test]
fn half_precision_checkpoints_are_loaded_as_such() {
    let place = Place::new();
    place.manifest("repeats = 1\ndtypes = ['f16', 'bf16']\nformat = 'pth'");
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 0, "{said}");
    for row in place.rows() {
        assert_eq!(row["verified"], "true", "{row:?}");
        assert_eq!(number(&row, "model_bytes"), 2 * number(&row, "parameters"));
    }
}

#[test]
fn damaged_weights_fail_their_run_with_the_tensor_named_and_the_others_go_on() {
    let place = Place::new();
    place.manifest("repeats = 1");
    assert!(place.run(&["prepare", "--size", TINY]).status.success());
    let path = place
        .path()
        .join(format!("checkpoints/{TINY}-f32/model.safetensors"));
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (said, code) = place.run_manifest(&["--only", "naive,per-tensor,init-only"]);
    assert_eq!(code, 3, "{said}");
    for row in place.rows() {
        match &*row["experiment"] {
            "naive" => {
                assert_eq!((&*row["status"], &*row["verified"]), ("failed", "false"));
                assert!(
                    row["reason"].contains("`out_head.weight` differs"),
                    "{}",
                    row["reason"]
                );
            }
            _ => assert_eq!(row["status"], "ok"),
        }
    }
}

#[test]
fn a_missing_truncated_or_foreign_checkpoint_is_told_once_before_anything_is_recorded() {
    let place = Place::new();
    place.manifest("repeats = 1");
    let whole = std::fs::read(fixture("tiny.pth")).unwrap();
    std::fs::write(place.path().join("half.pth"), &whole[..whole.len() / 2]).unwrap();
    place.write("foreign.pth", "no checkpoint at all");
    for (file, expected) in [
        ("absent.pth", "cannot open"),
        ("half.pth", "truncated"),
        ("foreign.pth", "no checkpoint"),
        (
            &fixture("tiny-logits.safetensors"),
            "named as in no layout of GPT-2",
        ),
    ] {
        for dry in [&["--dry-run"][..], &[]] {
            let (said, code) = place.run_manifest(&[&["--checkpoint", file], dry].concat());
            assert_eq!(code, 1, "{said}");
            assert_eq!(said.matches(expected).count(), 1, "{said}");
        }
        let in_the_manifest = format!("repeats = 1\ncheckpoint = '{file}'");
        place.manifest(&in_the_manifest);
        let (said, code) = place.run_manifest(&[]);
        assert!(code == 1 && said.contains(expected), "{said}");
        place.manifest("repeats = 1");
    }
    assert!(!place.path().join("out").exists(), "something was recorded");
}

#[test]
fn a_dry_run_of_a_checkpoint_tells_its_size_and_leaves_no_trace() {
    let place = Place::new();
    place.manifest("repeats = 1");
    let checkpoint = fixture("tiny.pth");
    let args = ["run", "m.toml", "--dry-run", "--size", TINY, "--checkpoint"];
    let output = place.run(&[&args[..], &[&*checkpoint]].concat());
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("runs:   7"), "{said}");
    assert!(!place.path().join("checkpoints").exists());
}

#[test]
fn a_truncated_prepared_checkpoint_is_made_anew() {
    let place = Place::new();
    place.manifest("repeats = 1");
    assert!(place.run(&["prepare", "--size", TINY]).status.success());
    let path = place
        .path()
        .join(format!("checkpoints/{TINY}-f32/model.safetensors"));
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 3]).unwrap();
    let (said, code) = place.run_manifest(&["--only", "naive"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        std::fs::read(&path).unwrap() == whole,
        "preparing is deterministic"
    );
}

#[test]
fn a_run_that_takes_too_long_is_stopped_and_recorded() {
    let place = Place::new();
    place.write(
        "m.toml",
        "[matrix]\nexperiments = ['init-only']\nsizes = ['medium']\ndevices = ['flex']\nrepeats = 1\n\
         [limits]\ntimeout_seconds = 1\n",
    );
    let (said, code) = place.run_manifest(&[]);
    assert_eq!(code, 3, "{said}");
    let rows = place.rows();
    assert_eq!(rows[0]["status"], "timeout");
    assert_eq!(rows[0]["host_heap_peak_bytes"], "");
}

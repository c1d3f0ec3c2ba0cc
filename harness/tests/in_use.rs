//! A loaded model in use: what goes wrong is told, and never taken for an answer; and it ends when it is to end.

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Place, TINY, fixture};

/// The tiny checkpoint with every element of one tensor changed.
fn damaged(place: &Place, tensor: &str, value: f32) {
    let source = gpt2::layout::Layouts::built_in()
        .open(fixture("tiny.pth").as_ref())
        .unwrap()
        .checkpoint;
    let metas: Vec<_> = source
        .tensors()
        .iter()
        .map(|tensor| checkpoint::TensorMeta {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
        })
        .collect();
    let path = place.path().join("damaged.safetensors");
    let written = checkpoint::write(
        &path,
        checkpoint::Format::Safetensors,
        &metas,
        &mut |meta, sink| match meta.name == tensor {
            true => sink(&value.to_le_bytes().repeat(meta.elements() as usize)),
            false => source
                .find(&meta.name)
                .unwrap()
                .read_in_pieces(1 << 20, sink),
        },
    );
    written.unwrap();
}

#[test]
fn weights_that_are_not_finite_are_an_error_that_names_them_and_never_tokens() {
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let place = Place::new();
        let tensor = "trf_blocks.1.ff.layers.0.weight";
        damaged(&place, tensor, value);
        let run = |command: &str, more: &[&str]| {
            let args = [
                command,
                "--checkpoint",
                "damaged.safetensors",
                "--size",
                TINY,
                "--tokens",
                "1,2,3",
            ];
            let output = place.run(&[&args[..], more].concat());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(output.stdout.is_empty(), "something was told");
            assert!(
                said.contains(&format!("the parameter `{tensor}` has ")),
                "{said}"
            );
            assert!(said.contains(shown) || said.contains("NaN"), "{said}");
            said
        };
        for technique in ["streamed", "quantized", "layer-offload"] {
            let said = run("generate", &["--experiment", technique]);
            assert!(
                said.contains("the logits for token 1 of 20 are not finite"),
                "{said}"
            );
        }
        if cfg!(feature = "train") {
            let said = run("finetune", &["--save", "trained.safetensors"]);
            assert!(
                said.contains("the loss of the model as it was loaded"),
                "{said}"
            );
            assert!(!place.path().join("trained.safetensors").exists());
        }
    }
}

#[test]
fn a_training_that_diverges_is_an_error_and_saves_nothing() {
    if !cfg!(feature = "train") {
        return;
    }
    let place = Place::new();
    let tiny = fixture("tiny.pth");
    let output = place.run(&[
        "finetune",
        "--checkpoint",
        &tiny,
        "--size",
        TINY,
        "--tokens",
        "1,2,3,4",
        "--steps",
        "9",
        "--learning-rate",
        "1e30",
        "--save",
        "trained.pth",
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("of 9 steps") && said.contains("not finite"),
        "{said}"
    );
    assert!(!place.path().join("trained.pth").exists());
}

#[test]
fn a_text_to_train_on_that_is_longer_than_the_context_is_refused_with_both_numbers() {
    if !cfg!(feature = "train") {
        return;
    }
    let place = Place::new();
    let tiny = fixture("tiny.pth");
    let finetune = |tokens: usize| {
        let tokens = vec!["5"; tokens].join(",");
        let output = place.run(&[
            "finetune",
            "--checkpoint",
            &tiny,
            "--size",
            TINY,
            "--tokens",
            &tokens,
        ]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    assert_eq!(finetune(65).0, Some(0));
    let (code, said) = finetune(66);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("66 tokens") && said.contains("context is 64") && said.contains("at most 65"),
        "{said}"
    );
}

#[test]
fn a_prompt_that_is_longer_than_the_context_is_told_which_of_its_tokens_are_used() {
    let place = Place::new();
    let tiny = fixture("tiny.pth");
    let tokens = vec!["5"; 70].join(",");
    let output = place.run(&[
        "generate",
        "--checkpoint",
        &tiny,
        "--size",
        TINY,
        "--tokens",
        &tokens,
        "--count",
        "2",
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("70 tokens") && said.contains("its last 64 tokens are used"),
        "{said}"
    );
}

#[test]
fn it_ends_when_its_time_is_up_and_when_it_is_interrupted() {
    let place = Place::new();
    let tiny = fixture("tiny.pth");
    let args = [
        "generate",
        "--checkpoint",
        &tiny,
        "--size",
        TINY,
        "--tokens",
        "1,2,3",
        "--count",
        "1000000000",
    ];
    let start = Instant::now();
    let output = place.run(&[&args[..], &["--timeout", "1"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("has not ended within 1 s") && said.contains("--timeout"),
        "{said}"
    );
    assert!(start.elapsed() < Duration::from_secs(30));

    #[cfg(unix)]
    {
        use std::io::Read;
        let mut command = place.command(&args);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It generates.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(said.contains("error: interrupted"), "{said}");
    }
}

/// Libraries of this source and name, in a folder for `LD_LIBRARY_PATH`; `None` where there is no C compiler.
#[cfg(target_os = "linux")]
fn libraries(place: &Place, sources: [(&str, &str); 2]) -> Option<String> {
    for (name, source) in sources {
        place.write("library.c", source);
        let compiled = std::process::Command::new("cc")
            .args(["-shared", "-fPIC", "-o", name, "library.c"])
            .current_dir(place.path())
            .status();
        match compiled {
            Ok(status) => assert!(status.success()),
            Err(_) => {
                eprintln!("skipped: no C compiler");
                return None;
            }
        }
    }
    Some(place.path().display().to_string())
}

#[cfg(target_os = "linux")]
#[test]
fn a_driver_that_lacks_a_function_makes_its_device_unusable_and_nothing_else() {
    let place = Place::new();
    let nvrtc = "int nvrtcVersion(int *a, int *b) { *a = 12; *b = 0; return 0; }";
    // The first asks for a function that is not there at once, the second after a few that are.
    for driver in [
        "int nothing(void) { return 0; }",
        "int cuInit(unsigned f) { return 0; } int cuDriverGetVersion(int *v) { *v = 12040; return 0; }",
    ] {
        let Some(folder) = libraries(&place, [("libcuda.so", driver), ("libnvrtc.so", nvrtc)])
        else {
            return;
        };
        let run = |args: &[&str]| {
            let mut command = place.command(args);
            let output = command.env("LD_LIBRARY_PATH", &folder).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!said.contains("panicked"), "{said}");
            (
                output.status.code(),
                String::from_utf8(output.stdout).unwrap(),
                said,
            )
        };
        let (code, told, said) = run(&["list", "--json"]);
        assert_eq!(code, Some(0), "{said}");
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let devices = told["devices"].as_array().unwrap();
        if cfg!(feature = "cuda") {
            let cuda = devices
                .iter()
                .find(|device| device["name"] == "cuda")
                .unwrap();
            let reason = cuda["reason"].as_str().unwrap();
            assert!(
                reason.contains("the NVIDIA driver lacks a function"),
                "{reason}"
            );
            let tiny = fixture("tiny.pth");
            let (code, _, said) = run(&[
                "generate",
                "--checkpoint",
                &tiny,
                "--size",
                TINY,
                "--tokens",
                "1",
                "--device",
                "cuda",
            ]);
            assert_eq!(code, Some(1), "{said}");
            assert!(
                said.contains("the NVIDIA driver lacks a function"),
                "{said}"
            );
        }
        let (code, _, said) = run(&["doctor"]);
        assert_eq!(code, Some(0), "{said}");
        place.write(
            "m.toml",
            &format!("[matrix]\nexperiments = ['naive']\nsizes = ['{TINY}']\ndevices = ['flex']\nrepeats = 1\n"),
        );
        let (code, _, said) = run(&["run", "m.toml", "--out", "out", "--resume"]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(place.rows()[0]["status"], "ok");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_is_cut_off_while_a_model_is_in_use_is_told_with_the_place() {
    use std::io::{BufRead, BufReader, Read};

    let place = Place::new();
    let size = "v4096-c256-e256-l8-h8";
    let prepared = place.run(&["prepare", "--size", size, "--format", "safetensors"]);
    assert!(prepared.status.success());
    let path = place
        .path()
        .join(format!("checkpoints/{size}-f32/model.safetensors"));
    let mut command = place.command(&["generate", "--checkpoint"]);
    let mut harness = command
        .arg(&path)
        .args(["--tokens", "1,2,3", "--count", "100000", "--experiment"])
        .arg("mmap-zero-copy")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Its first token is there: the model is mapped, and being read.
    let mut first = Vec::new();
    let mut out = BufReader::new(harness.stdout.take().unwrap());
    out.read_until(b',', &mut first).unwrap();
    assert!(!first.is_empty());
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(4096).unwrap();
    let drained = std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    let status = harness.wait().unwrap();
    drained.join().unwrap().unwrap();
    let mut said = String::new();
    let mut errors = harness.stderr.take().unwrap();
    errors.read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("error: the page of") && said.contains("was cut off while it was mapped"),
        "{said}"
    );
}

#[test]
fn a_tokenizer_that_makes_gigabytes_of_a_letter_is_refused() {
    let place = Place::new();
    let double = r#"{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}"#;
    let many = vec![double; 60].join(",");
    for part in ["normalizer", "decoder"] {
        let folder = place.path().join(part);
        std::fs::create_dir(&folder).unwrap();
        let text = format!(
            r#"{{"version": "1.0", "added_tokens": [], "{part}": {{"type": "Sequence", "{part}s": [{many}]}},
                "model": {{"type": "BPE", "vocab": {{"a": 0}}, "merges": []}}}}"#
        );
        std::fs::write(folder.join("tokenizer.json"), text).unwrap();
        let tiny = fixture("tiny.pth");
        let output = place.run(&[
            "generate",
            "--checkpoint",
            &tiny,
            "--size",
            TINY,
            "--tokenizer",
            part,
            "--prompt",
            "a",
        ]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("60 of its steps"), "{said}");
    }
}

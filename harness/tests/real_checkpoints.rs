//! Checkpoints as PyTorch and transformers write them, in every format and layout: loaded by every experiment, the model
//! computes what PyTorch computes, goes on with a text as it does there, and can be trained.
//!
//! The fixtures are made by `fixtures/make.py`.

mod common;

use std::collections::HashSet;
use std::path::Path;

use common::saved::{case, cases};
use common::{Place, fixture};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn every_experiment_computes_pytorchs_logits_from_every_checkpoint() {
    for (folder, checkpoint, case) in cases() {
        let place = Place::new();
        let manifest = format!(
            "[matrix]\nexperiments = ['all']\ndevices = ['flex']\nrepeats = 1\ncheckpoint = '{}'\nsizes = ['{}']\n",
            text(&checkpoint),
            case.size
        );
        place.write("m.toml", &manifest);
        let reference = folder.join("logits.safetensors");
        let options = case.args.iter().map(|option| &**option);
        let options: Vec<&str> = ["--reference", text(&reference)]
            .into_iter()
            .chain(options)
            .collect();
        let (said, code) = place.run_manifest(&options);
        let name = folder.file_name().unwrap().display();
        assert_eq!(code, 0, "{name}: {said}");
        let mut loaded = HashSet::new();
        for row in place.rows() {
            assert_eq!(
                (&row["model"], &row["dtype"]),
                (&case.size, &case.dtype),
                "{name}"
            );
            let experiment = row["experiment"].clone();
            if row["status"] == "skipped" {
                continue;
            }
            assert_eq!(
                row["status"], "ok",
                "{name} {experiment}: {}",
                row["reason"]
            );
            if experiment == "init-only" {
                continue;
            }
            assert_eq!(row["verified"], "true", "{name} {experiment}");
            let error: f64 = row["logits_error"].parse().unwrap();
            let allowed = match (&*case.dtype, &*experiment) {
                (_, "quantized" | "prequantized") => 5e-2,
                ("f32", "half") => 2e-2,
                // Every weight loses 16 bits here, and none where the checkpoint is of bf16.
                ("f32", "half:bf16") => 4e-2,
                ("f32", _) => 1e-4,
                _ => 2e-2,
            };
            assert!(
                error <= allowed,
                "{name} {experiment}: logits are off by {error}"
            );
            loaded.insert(experiment);
        }
        for needed in [
            "naive",
            "mmap-assign",
            "streamed",
            "parallel-read",
            "mmap-zero-copy",
            "per-tensor",
            "sharded",
        ] {
            assert!(loaded.contains(needed), "{name}: {needed} did not load it");
        }
    }
}

#[test]
fn greedy_generation_goes_on_with_pytorchs_tokens() {
    for (folder, checkpoint, case) in cases() {
        let place = Place::new();
        let mut args = vec![
            "generate",
            "--checkpoint",
            text(&checkpoint),
            "--size",
            &case.size,
            "--tokens",
            "1,2,3",
        ];
        args.extend(case.args.iter().map(|option| &**option));
        let output = place.run(&args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", folder.display());
        let tokens = String::from_utf8(output.stdout).unwrap();
        let tokens: Vec<u32> = tokens
            .trim()
            .split(',')
            .map(|id| id.parse().unwrap())
            .collect();
        assert_eq!(tokens, case.tokens, "{}", folder.display());
    }
}

#[test]
fn a_checkpoint_in_another_form_is_still_the_same_weights() {
    for (folder, checkpoint, case) in cases() {
        let place = Place::new();
        let prepare = |from: &str| {
            let formats = [
                "safetensors",
                "pth",
                "per-tensor",
                "sharded",
                "sharded-pth",
                "burnpack",
            ];
            let mut args = vec!["prepare", "--from", from, "--size", &case.size];
            args.extend(case.args.iter().map(|option| &**option));
            formats
                .iter()
                .for_each(|format| args.extend(["--format", format]));
            let output = place.run(&args);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{}: {said}", folder.display());
            String::from_utf8(output.stdout).unwrap()
        };
        let said = prepare(text(&checkpoint));
        let written: Vec<&str> = said
            .lines()
            .skip(1)
            .filter(|line| !line.starts_with(' '))
            .collect();
        assert_eq!(written.len(), 6, "{said}");
        let digests = |of: &str| {
            let sidecar = place.path().join(of).with_file_name("digests.json");
            let sidecar = std::fs::read(sidecar).unwrap();
            let sidecar: serde_json::Value = serde_json::from_slice(&sidecar).unwrap();
            sidecar["digests"].clone()
        };
        let original = digests(written[5]);
        assert!(original.as_object().unwrap().len() > 10);
        // Each of them, read again as somebody's own.
        for written in written {
            let again = prepare(written);
            let first = again
                .lines()
                .skip(1)
                .find(|line| line.ends_with("model.bpk"))
                .unwrap();
            assert_eq!(digests(first), original, "{written}");
        }
    }
}

#[test]
fn what_any_experiment_loads_can_be_trained() {
    // One with transposed matrices and a tied head.
    let (_, checkpoint, case) = case("hf-tied-safetensors");
    let place = Place::new();
    let mut trained = 0;
    place.write(
        "m.toml",
        "[matrix]\nexperiments = ['all']\nsizes = ['v9-c8-e4-l1-h2']\ndevices = ['flex']\nrepeats = 1\n",
    );
    place.run_manifest(&[]);
    let rows = place.rows();
    let experiments = rows.iter().map(|row| &*row["experiment"]);
    for experiment in experiments.filter(|name| *name != "init-only") {
        let args = [
            "finetune",
            "--checkpoint",
            text(&checkpoint),
            "--size",
            &case.size,
            "--tokens",
            "1,2,3,4,5,6,7,8",
            "--learning-rate",
            "1e-3",
            "--experiment",
            experiment,
        ];
        let output = place.run(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if experiment.ends_with("quantized") {
            assert!(
                said.contains("a quantised model cannot be trained"),
                "{experiment}: {said}"
            );
            continue;
        }
        assert!(output.status.success(), "{experiment}: {said}");
        let losses = String::from_utf8(output.stdout).unwrap();
        let losses: Vec<f32> = losses
            .lines()
            .map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap())
            .collect();
        assert!(
            losses.len() == 2 && losses[1] < losses[0],
            "{experiment}: {losses:?}"
        );
        trained += 1;
    }
    assert!(trained >= 15, "{trained} experiments were trained");
}

#[test]
fn missing_unexpected_and_misshapen_tensors_are_told_together_with_the_nearest_name() {
    let place = Place::new();
    let path = place.path().join("wrong.safetensors");
    let tiny = fixture("tiny.pth");
    let source = gpt2::layout::Layouts::built_in()
        .open(Path::new(&tiny))
        .unwrap()
        .checkpoint;
    let metas: Vec<_> = source
        .tensors()
        .iter()
        .map(|tensor| checkpoint::TensorMeta {
            name: match &*tensor.name {
                "final_norm.scale" => "final_norm.scales".to_owned(),
                name => name.to_owned(),
            },
            dtype: tensor.dtype,
            shape: match &*tensor.name {
                "trf_blocks.1.norm1.scale" => vec![47],
                _ => tensor.shape.clone(),
            },
        })
        .collect();
    let mut fill =
        |meta: &checkpoint::TensorMeta,
         sink: &mut dyn FnMut(&[u8]) -> Result<(), checkpoint::Error>| {
            sink(&vec![1; meta.bytes() as usize])
        };
    checkpoint::write(&path, checkpoint::Format::Safetensors, &metas, &mut fill).unwrap();
    for strict in ["--strict=true", "--strict=false"] {
        let output = place.run(&[
            "prepare",
            "--from",
            "wrong.safetensors",
            "--size",
            common::TINY,
            strict,
        ]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        for expected in [
            "wrong.safetensors",
            "missing: `final_norm.scale` [48] (there is `final_norm.scales` [48])",
            "of another shape: `trf_blocks.1.norm1.scale` is [47], not [48]",
        ] {
            assert!(said.contains(expected), "{said}\nshould contain {expected}");
        }
        assert_eq!(
            said.contains("unexpected: `final_norm.scales` [48]"),
            strict == "--strict=true",
            "{said}"
        );
    }
}

#[test]
fn what_is_unexpected_is_skipped_where_that_is_asked_for() {
    let place = Place::new();
    let (_, checkpoint, case) = case("hf-without-prefix");
    // A layout that does not know the last layer norm's shift of the first layer would miss it; one more tensor in the file
    // is what others have.
    let bytes = std::fs::read(&checkpoint).unwrap();
    let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value =
        serde_json::from_slice(&bytes[8..8 + header_bytes]).unwrap();
    let end = bytes.len() - 8 - header_bytes;
    header["extra.weight"] =
        serde_json::json!({"dtype": "F32", "shape": [2], "data_offsets": [end, end + 8]});
    let header = serde_json::to_vec(&header).unwrap();
    let mut more = (header.len() as u64).to_le_bytes().to_vec();
    more.extend(&header);
    more.extend(&bytes[8 + header_bytes..]);
    more.extend([0; 8]);
    std::fs::write(place.path().join("more.safetensors"), more).unwrap();
    let generate = |strict: &str| {
        let args = [
            "generate",
            "--checkpoint",
            "more.safetensors",
            "--size",
            &case.size,
            "--tokens",
            "1,2,3",
            strict,
        ];
        let output = place.run(&args);
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (went_well, said) = generate("--strict=true");
    assert!(
        !went_well
            && said.contains("unexpected: `extra.weight` [2]")
            && said.contains("--strict=false"),
        "{said}"
    );
    let (went_well, said) = generate("--strict=false");
    assert!(went_well, "{said}");
}

#[test]
fn a_layout_file_adds_names_without_code() {
    let place = Place::new();
    let source = gpt2::layout::Layouts::built_in()
        .open(Path::new(&fixture("tiny.pth")))
        .unwrap()
        .checkpoint;
    let renamed = |name: &str| format!("my.{}", name.replace("trf_blocks.", "layer_"));
    let metas: Vec<_> = source
        .tensors()
        .iter()
        .map(|tensor| checkpoint::TensorMeta {
            name: renamed(&tensor.name),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
        })
        .collect();
    let path = place.path().join("mine.safetensors");
    let mut fill =
        |meta: &checkpoint::TensorMeta,
         sink: &mut dyn FnMut(&[u8]) -> Result<(), checkpoint::Error>| {
            let tensors = source.tensors().iter();
            let mut tensor = tensors.filter(|tensor| renamed(&tensor.name) == meta.name);
            tensor.next().unwrap().read_in_pieces(1 << 20, sink)
        };
    checkpoint::write(&path, checkpoint::Format::Safetensors, &metas, &mut fill).unwrap();
    let size: gpt2::Size = common::TINY.parse().unwrap();
    let mut layout = "name = 'mine'\n[tensors]\n".to_owned();
    for spec in size.config().tensors() {
        if spec.layer.is_none_or(|layer| layer == 0) {
            let name = spec.name.replace("trf_blocks.0", "trf_blocks.{layer}");
            layout += &format!(
                "\"{name}\" = \"{}\"\n",
                name.replace("trf_blocks.", "layer_")
            );
        }
    }
    place.write("mine.toml", &layout);
    place.write("m.toml", "[matrix]\nexperiments = ['streamed', 'mmap-zero-copy', 'per-tensor']\ndevices = ['flex']\nrepeats = 1\ncheckpoint = 'mine.safetensors'\nlayout = 'mine.toml'\n");
    let reference = fixture("tiny-logits.safetensors");
    let (said, code) = place.run_manifest(&["--size", common::TINY, "--reference", &reference]);
    assert_eq!(code, 0, "{said}");
    assert!(
        place.rows().len() == 3 && place.rows().iter().all(|row| row["verified"] == "true"),
        "{said}"
    );
    // Without it, the names are unknown, and the message says what to do.
    let output = place.run(&["prepare", "--from", "mine.safetensors"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("`my.layer_0.att.W_query.weight`") && said.contains("--layout"),
        "{said}"
    );
}

#[test]
fn a_prompt_is_told_and_answered_in_the_words_of_the_models_tokenizer() {
    let (_, checkpoint, case) = case("hf-tied-safetensors");
    let place = Place::new();
    // Byte pairs as GPT-2 has them: a space is Ġ, and two merges.
    let singles = ('a'..='z').chain('A'..='Z').map(String::from);
    let more = ["Ġ", "ab", "Ġc", "1", "2", "3", "4", "5", "6"].map(str::to_owned);
    let words: Vec<String> = singles.chain(more).collect();
    assert_eq!(words.len(), 61, "a word for each token of the model");
    let vocabulary: std::collections::BTreeMap<&str, usize> = words
        .iter()
        .enumerate()
        .map(|(id, word)| (&**word, id))
        .collect();
    place.write("vocab.json", &serde_json::to_string(&vocabulary).unwrap());
    place.write("merges.txt", "#version: 0.2\na b\nĠ c\n");
    let generate = |text: [&str; 2]| {
        let mut args = vec![
            "generate",
            "--checkpoint",
            self::text(&checkpoint),
            "--size",
            &case.size,
        ];
        args.extend(text);
        if text[0] == "--prompt" {
            args.extend(["--tokenizer", "."]);
        }
        let output = place.run(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    };
    // ab, Ġc, d.
    let ids = generate(["--tokens", "53,54,3"]);
    let ids = ids.trim().split(',').map(|id| id.parse::<usize>().unwrap());
    let expected: String = ids.map(|id| words[id].replace('Ġ', " ")).collect();
    let said = generate(["--prompt", "ab cd"]);
    assert_eq!(said.trim_end_matches('\n'), expected);
    // Without the tokenizer there is nothing to read the prompt with.
    let refused = place.run(&["generate", "--checkpoint", "x", "--prompt", "a"]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn a_device_with_memory_of_its_own_gets_them_right_too() {
    if !common::has_vulkan() {
        return;
    }
    let (folder, checkpoint, case) = case("hf-tied-safetensors");
    let place = Place::new();
    let manifest = format!(
        "[matrix]\nexperiments = ['naive', 'mmap-assign', 'streamed', 'parallel-read', 'parallel-read:uring', 'quantized']\n\
         devices = ['vulkan']\nrepeats = 1\ncheckpoint = '{}'\nsizes = ['{}']\n",
        text(&checkpoint),
        case.size
    );
    place.write("m.toml", &manifest);
    let reference = folder.join("logits.safetensors");
    let (said, code) = place.run_manifest(&["--reference", text(&reference)]);
    assert_eq!(code, 0, "{said}");
    let rows = place.rows();
    assert_eq!(rows.len(), 6, "{said}");
    assert!(rows.iter().all(|row| row["verified"] == "true"), "{said}");
    assert!(rows.iter().any(|row| !row["logits_error"].is_empty()));
}

#[test]
fn weights_of_another_dtype_are_told_as_such() {
    let place = Place::new();
    let header = r#"{"wte.weight":{"dtype":"F64","shape":[2,2],"data_offsets":[0,32]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend([0; 32]);
    std::fs::write(place.path().join("double.safetensors"), file).unwrap();
    let output = place.run(&["prepare", "--from", "double.safetensors"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("`wte.weight` is F64"), "{said}");
}

//! What is trained is saved as it came in, gone on from as if it had not been interrupted, and written for transformers.

mod common;

use std::path::{Path, PathBuf};

use checkpoint::Checkpoint;
use common::{Place, TINY, fixture, saved};

const TOKENS: &str = "1,2,3,4,5,6,7,8";

/// The checkpoint of every fixture that PyTorch saved, and its size. What is cast on the way is not saved as it came in.
fn cases() -> Vec<(PathBuf, String)> {
    let cases = saved::cases().into_iter();
    let stored = cases.filter(|(folder, ..)| !folder.ends_with("hf-mixed"));
    stored
        .map(|(_, checkpoint, case)| (checkpoint, case.size))
        .collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The losses that a training tells.
fn finetune(place: &Place, more: &[&str]) -> Vec<String> {
    let rate: &[&str] = match more.contains(&"--learning-rate") {
        true => &[],
        false => &["--learning-rate", "1e-3"],
    };
    let output = place.run(&[&["finetune", "--tokens", TOKENS], rate, more].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // A step in half precision may be too small, or too large.
    let trained = output.status.success() || said.contains("the loss did not fall");
    assert!(trained, "{more:?}: {said}");
    let told = String::from_utf8(output.stdout).unwrap();
    let losses = told.lines().filter_map(|line| line.strip_prefix("loss "));
    let losses = losses.map(|line| line.split(' ').next().unwrap().to_owned());
    losses.collect()
}

fn read(place: &Place, name: &str) -> Vec<u8> {
    std::fs::read(place.path().join(name)).unwrap()
}

#[test]
fn a_trained_model_is_saved_in_the_format_the_names_and_the_layout_that_it_came_in() {
    for (original, size) in cases() {
        let place = Place::new();
        let before = Checkpoint::open(&original).unwrap();
        let name = original.file_name().unwrap().to_str().unwrap();
        let saved = match name.ends_with(".index.json") {
            true => "new/folder".to_owned(),
            false => format!("new/{name}"),
        };
        let args = [
            "--checkpoint",
            text(&original),
            "--size",
            &size,
            "--steps",
            "3",
        ];
        let losses = finetune(&place, &[&args[..], &["--save", &saved]].concat());
        let path = place.path().join(&saved);
        let after = Checkpoint::open(&path).unwrap();
        assert_eq!(after.format(), before.format(), "{name}");
        let mut kept = 0;
        for tensor in before
            .tensors()
            .iter()
            .filter(|tensor| tensor.shape.len() <= 2 && !tensor.name.ends_with(".mask"))
        {
            let again = after.find(&tensor.name);
            let again = again.unwrap_or_else(|| panic!("{}: {}", original.display(), tensor.name));
            assert_eq!(
                (&again.shape, again.dtype),
                (&tensor.shape, tensor.dtype),
                "{name}"
            );
            kept += 1;
        }
        assert!(kept > 10, "{name}");
        // The configuration is beside it: its size need not be told.
        let again = finetune(&place, &["--checkpoint", &saved]);
        assert_eq!(again[0], losses[3], "{}", original.display());
    }
}

#[test]
fn every_format_that_can_be_loaded_can_be_saved() {
    let place = Place::new();
    let formats = [
        "safetensors",
        "pth",
        "per-tensor",
        "sharded",
        "sharded-pth",
        "burnpack",
    ];
    let tiny = fixture("tiny.pth");
    let mut args = vec!["prepare", "--from", &*tiny, "--size", TINY];
    formats
        .iter()
        .for_each(|format| args.extend(["--format", format]));
    let output = place.run(&args);
    assert!(output.status.success());
    let told = String::from_utf8(output.stdout).unwrap();
    let written: Vec<&str> = told
        .lines()
        .skip(1)
        .filter(|line| !line.starts_with(' '))
        .collect();
    assert_eq!(written.len(), formats.len(), "{told}");
    for (format, from) in formats.iter().zip(written) {
        let to = format!("{format}/saved");
        let args = ["--checkpoint", from, "--size", TINY, "--save", &to];
        let losses = finetune(&place, &args);
        let names = |path: &Path| -> Vec<String> {
            let opened = Checkpoint::open(path).unwrap();
            let mut names: Vec<_> = opened
                .tensors()
                .iter()
                .map(|tensor| tensor.name.clone())
                .filter(|name| !name.ends_with(".mask"))
                .collect();
            names.sort();
            names
        };
        let saved = place.path().join(&to);
        assert_eq!(names(&saved), names(&place.path().join(from)), "{format}");
        assert_eq!(
            finetune(&place, &["--checkpoint", &to])[0],
            losses[1],
            "{format}"
        );
    }
}

#[test]
fn ten_steps_are_five_and_five_more_to_the_bit_by_any_technique() {
    let (original, size) = cases()
        .into_iter()
        .find(|(path, _)| text(path).contains("hf-untied-bin"))
        .unwrap();
    let place = Place::new();
    let from = ["--checkpoint", text(&original), "--size", &size];
    let at_once = [
        "--steps",
        "10",
        "--save",
        "ten/model.bin",
        "--save-optimizer",
        "ten/state",
    ];
    finetune(&place, &[&from[..], &at_once].concat());
    let half = [
        "--steps",
        "5",
        "--save",
        "five/model.bin",
        "--save-optimizer",
        "five/state",
    ];
    finetune(&place, &[&from[..], &half].concat());
    for technique in [
        "streamed",
        "naive",
        "mmap-assign",
        "parallel-read",
        "mmap-zero-copy",
        "per-tensor",
        "layer-offload",
    ] {
        let [model, state] = ["model.bin", "state"].map(|name| format!("{technique}/{name}"));
        let more = [
            "--checkpoint",
            "five/model.bin",
            "--steps",
            "5",
            "--experiment",
            technique,
            "--resume-optimizer",
            "five/state",
            "--save",
            &model,
            "--save-optimizer",
            &state,
        ];
        finetune(&place, &more);
        assert!(
            read(&place, &model) == read(&place, "ten/model.bin"),
            "{technique}"
        );
        assert!(
            read(&place, &state) == read(&place, "ten/state"),
            "{technique}"
        );
    }
    // Without the state, they are other steps.
    finetune(
        &place,
        &[
            "--checkpoint",
            "five/model.bin",
            "--steps",
            "5",
            "--save",
            "other.bin",
        ],
    );
    assert!(read(&place, "other.bin") != read(&place, "ten/model.bin"));
}

#[test]
fn a_state_that_is_not_the_models_is_refused_with_what_is_wrong() {
    let place = Place::new();
    let tiny = fixture("tiny.pth");
    let from = ["--checkpoint", &*tiny, "--size", TINY];
    finetune(
        &place,
        &[&from[..], &["--save-optimizer", "state"]].concat(),
    );
    let (other, size) = cases().remove(0);
    let refused = |checkpoint: &str, size: &str, more: &[&str]| {
        let args = [
            "finetune",
            "--tokens",
            TOKENS,
            "--checkpoint",
            checkpoint,
            "--size",
            size,
        ];
        let output = place.run(&[&args[..], more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    };
    let said = refused(text(&other), &size, &["--resume-optimizer", "state"]);
    assert!(said.contains("state: "), "{said}");
    let said = refused(&tiny, TINY, &["--resume-optimizer", &tiny]);
    assert!(
        said.contains("is no state of AdamW") && said.contains("`step`"),
        "{said}"
    );
    let half = ["--resume-optimizer", "state", "--experiment", "half"];
    let said = refused(&tiny, TINY, &half);
    assert!(
        said.contains("is f32, and the model is trained in f16"),
        "{said}"
    );
}

#[test]
fn nothing_that_is_there_is_lost_by_saving_and_what_is_in_the_way_is_told_before_the_training() {
    let place = Place::new();
    let (sharded, size) = cases()
        .into_iter()
        .find(|(path, _)| text(path).contains("hf-sharded-safetensors"))
        .unwrap();
    place.write("kept.txt", "mine");
    let finetune = |checkpoint: &str, size: &str, save: &str| {
        let args = [
            "finetune",
            "--tokens",
            TOKENS,
            "--checkpoint",
            checkpoint,
            "--size",
            size,
            "--save",
            save,
        ];
        let output = place.run(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(output.stdout.is_empty(), "it was trained");
        said
    };
    let said = finetune(text(&sharded), &size, ".");
    assert!(
        said.contains("is a folder, and this is there already"),
        "{said}"
    );
    let tiny = fixture("tiny.pth");
    let said = finetune(&tiny, TINY, ".");
    assert!(said.contains("give the name of a file"), "{said}");
    let said = finetune(&tiny, TINY, "kept.txt/model.pth");
    assert!(said.contains("cannot be written to"), "{said}");
    assert_eq!(read(&place, "kept.txt"), b"mine");
}

#[test]
fn a_checkpoint_is_written_as_transformers_has_it() {
    let place = Place::new();
    let tiny = fixture("tiny.pth");
    let generate = |checkpoint: &str, more: &[&str]| {
        let args = [
            "generate",
            "--checkpoint",
            checkpoint,
            "--tokens",
            "1,2,3",
            "--count",
            "8",
        ];
        let output = place.run(&[&args[..], more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let expected = generate(&tiny, &["--size", TINY]);
    let mut args = vec![
        "prepare",
        "--as",
        "hugging-face",
        "--from",
        &tiny,
        "--size",
        TINY,
    ];
    for format in ["safetensors", "pth", "sharded", "sharded-pth"] {
        args.extend(["--format", format]);
    }
    // Made anew where it is there already.
    place.run(&args);
    let output = place.run(&args);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let told = String::from_utf8(output.stdout).unwrap();
    let folders: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("checkpoints"))
        .collect();
    assert_eq!(folders.len(), 4, "{told}");
    for folder in folders {
        let path = place.path().join(folder);
        let configuration = std::fs::read(path.join("config.json")).unwrap();
        let configuration: serde_json::Value = serde_json::from_slice(&configuration).unwrap();
        assert_eq!(configuration["n_head"], 4);
        let written = Checkpoint::open(&path).unwrap();
        let fused = written.find("transformer.h.1.attn.c_attn.weight").unwrap();
        assert_eq!(fused.shape, [48, 144]);
        assert!(written.find("lm_head.weight").is_some());
        assert_eq!(generate(folder, &[]), expected, "{folder}");
    }
    // Of a prepared size, too; and what transformers does not read is refused.
    let output = place.run(&["prepare", "--as", "hugging-face", "--size", TINY]);
    assert!(output.status.success());
    let output = place.run(&[
        "prepare",
        "--as",
        "hugging-face",
        "--size",
        TINY,
        "--format",
        "burnpack",
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("transformers reads no burnpack"), "{said}");
}

#[test]
fn the_losses_of_a_tied_model_are_pytorchs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hf-tied-safetensors");
    let expected = std::fs::read(folder.join("losses.json")).unwrap();
    let expected: Vec<f64> = serde_json::from_slice(&expected).unwrap();
    assert!(expected.len() == 6 && expected[5] < expected[0]);
    let checkpoint = folder.join("model.safetensors");
    for experiment in ["naive", "streamed", "mmap-zero-copy"] {
        let place = Place::new();
        let args = [
            "--checkpoint",
            text(&checkpoint),
            "--experiment",
            experiment,
            "--steps",
            "5",
            "--learning-rate",
            "1e-2",
        ];
        let losses = finetune(&place, &args);
        let losses: Vec<f64> = losses.iter().map(|loss| loss.parse().unwrap()).collect();
        assert_eq!(losses.len(), expected.len());
        for (loss, expected) in losses.iter().zip(&expected) {
            assert!(
                (loss - expected).abs() < 1e-4 * expected,
                "{experiment}: {losses:?} and {expected:?}"
            );
        }
    }
}

#[test]
fn what_would_be_read_as_another_model_or_is_one_file_twice_is_refused_before_the_training() {
    let tiny = fixture("tiny.pth");
    let place = Place::new();
    std::fs::create_dir(place.path().join("theirs")).unwrap();
    let theirs = r#"{"model_type": "gpt2", "n_head": 2}"#;
    place.write("theirs/config.json", theirs);
    let common = [
        "finetune",
        "--tokens",
        TOKENS,
        "--checkpoint",
        &*tiny,
        "--size",
        TINY,
    ];
    for (more, expected) in [
        (&["--save", "theirs/t.pth"][..], "is of another model"),
        (&["--save", "a", "--save-optimizer", "./a"], "are one file"),
        (&["--steps", "0"], "steps is 0: it must be from 1"),
        (
            &["--learning-rate", "nan"],
            "learning rate is NaN: it must be from",
        ),
    ] {
        let output = place.run(&[&common[..], more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(expected),
            "{said}"
        );
        assert!(output.stdout.is_empty(), "nothing is trained");
    }
    assert_eq!(read(&place, "theirs/config.json"), theirs.as_bytes());
    assert!(!place.path().join("theirs/t.pth").exists());
}

/// A training of this checkpoint that must be refused as a wrong command line, before anything is trained.
fn refused(place: &Place, checkpoint: &str, more: &[&str]) -> String {
    let args = ["finetune", "--tokens", TOKENS, "--checkpoint", checkpoint];
    let output = place.run(&[&args[..], more].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{more:?}: {said}");
    assert!(output.stdout.is_empty(), "{more:?}: it was trained");
    said
}

/// A folder `m` with the files of a fixture.
fn copied(place: &Place, name: &str) -> String {
    let (folder, _, case) = saved::case(name);
    std::fs::create_dir_all(place.path().join("m")).unwrap();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        std::fs::copy(entry.path(), place.path().join("m").join(entry.file_name())).unwrap();
    }
    case.size
}

#[test]
fn what_is_read_is_never_written_to_however_it_is_spelled() {
    let place = Place::new();
    copied(&place, "hf-tied-safetensors");
    place.write("m/tokenizer.json", "{}");
    place.write("m/merges.txt", "a b");
    let kept = [
        "m/model.safetensors",
        "m/config.json",
        "m/tokenizer.json",
        "m/merges.txt",
    ];
    let before = kept.map(|name| read(&place, name));
    let model = "m/model.safetensors";
    let other_name = "give another name";
    for path in [model, "m/../m/model.safetensors", "./m/model.safetensors"] {
        for option in ["--save", "--save-optimizer"] {
            let said = refused(&place, model, &[option, path]);
            assert!(said.contains(path) && said.contains(other_name), "{said}");
            let said = refused(&place, "m", &[option, path]);
            assert!(said.contains(path) && said.contains(other_name), "{said}");
        }
    }
    for path in [
        "m/config.json",
        "m/tokenizer.json",
        "m/merges.txt",
        "m/new.json",
    ] {
        for option in ["--save", "--save-optimizer"] {
            let said = refused(&place, model, &[option, path]);
            assert!(said.contains(path) && said.contains(other_name), "{said}");
        }
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("m", place.path().join("link")).unwrap();
        std::fs::hard_link(place.path().join(model), place.path().join("second")).unwrap();
        for path in ["link/model.safetensors", "second"] {
            let said = refused(&place, model, &["--save", path]);
            assert!(said.contains("the checkpoint that is read"), "{said}");
        }
    }
    assert_eq!(kept.map(|name| read(&place, name)), before);
}

#[test]
fn a_shard_or_a_tensors_file_of_what_is_read_is_never_written_to() {
    let place = Place::new();
    copied(&place, "hf-sharded-safetensors");
    let shard = "m/model-00002-of-00004.safetensors";
    let index = "m/model.safetensors.index.json";
    let before = [shard, index].map(|name| read(&place, name));
    for path in [shard, index] {
        for option in ["--save", "--save-optimizer"] {
            let said = refused(&place, "m", &[option, path]);
            assert!(said.contains("give another name"), "{said}");
        }
    }
    assert_eq!([shard, index].map(|name| read(&place, name)), before);
    // Nor a shard of another checkpoint.
    let tiny = fixture("tiny.pth");
    let said = refused(&place, &tiny, &["--size", TINY, "--save", shard]);
    assert!(said.contains("one of the files of a checkpoint"), "{said}");
    assert_eq!(read(&place, shard), before[0]);
}

#[test]
fn a_model_and_a_state_never_take_each_others_place() {
    let place = Place::new();
    let tiny = fixture("tiny.pth");
    let from = ["--checkpoint", &*tiny, "--size", TINY];
    let save = ["--save", "a/model.pth", "--save-optimizer", "a/state"];
    finetune(&place, &[&from[..], &save].concat());
    let before = ["a/model.pth", "a/state"].map(|name| read(&place, name));
    let size = ["--size", TINY];
    let refused = |more: &[&str]| refused(&place, &tiny, &[&size[..], more].concat());
    for (model, state) in [("x/a", "x/../x/a"), ("x/a", "./x/a"), ("x/a", "x//a")] {
        let said = refused(&["--save", model, "--save-optimizer", state]);
        assert!(said.contains("are one file"), "{said}");
    }
    let said = refused(&["--save", "x/a", "--save-optimizer", "x/a/state"]);
    assert!(said.contains("lie in one another"), "{said}");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("a", place.path().join("link")).unwrap();
        let said = refused(&["--save", "a/new", "--save-optimizer", "link/new"]);
        assert!(said.contains("are one file"), "{said}");
    }
    let said = refused(&["--resume-optimizer", "a/state", "--save", "a/../a/state"]);
    assert!(said.contains("--resume-optimizer"), "{said}");
    let said = refused(&["--save", "a/state"]);
    assert!(said.contains("an optimizer's state"), "{said}");
    let said = refused(&["--save-optimizer", "a/model.pth"]);
    assert!(said.contains("no state of AdamW"), "{said}");
    assert_eq!(
        ["a/model.pth", "a/state"].map(|name| read(&place, name)),
        before
    );
    // What is of their kind is replaced: the state also by the one that goes on from it.
    let again = [&save[..], &["--resume-optimizer", "a/state"]].concat();
    finetune(&place, &[&from[..], &again].concat());
    assert!(read(&place, "a/state") != before[1]);
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_never_replaced() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let place = Place::new();
    let tiny = fixture("tiny.pth");
    let pipe = place.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    symlink("/dev/null", place.path().join("null")).unwrap();
    let socket = place.path().join("socket");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, what) in [
        ("pipe", "a pipe"),
        ("null", "a link"),
        ("socket", "a socket"),
    ] {
        for option in ["--save", "--save-optimizer"] {
            let said = refused(&place, &tiny, &["--size", TINY, option, path]);
            assert!(said.contains(path) && said.contains(what), "{said}");
        }
    }
    let is_pipe = |path| std::fs::metadata(path).unwrap().file_type().is_fifo();
    assert!(is_pipe(pipe));
    let link = std::fs::read_link(place.path().join("null")).unwrap();
    assert_eq!(link, Path::new("/dev/null"));
}

#[test]
fn a_file_that_is_no_checkpoint_or_holds_more_than_weights_is_never_replaced() {
    let place = Place::new();
    let size = copied(&place, "nanogpt");
    std::fs::copy(
        place.path().join("m/checkpoint.pt"),
        place.path().join("earlier.pt"),
    )
    .unwrap();
    place.write("notes.txt", "mine");
    let earlier = read(&place, "earlier.pt");
    for (path, what) in [
        ("m/checkpoint.pt", "the checkpoint that is read"),
        ("earlier.pt", "more than weights"),
        ("notes.txt", "no checkpoint"),
    ] {
        let said = refused(
            &place,
            "m/checkpoint.pt",
            &["--size", &size, "--save", path],
        );
        assert!(
            said.contains(what) && said.contains("another name"),
            "{said}"
        );
    }
    assert_eq!(read(&place, "m/checkpoint.pt"), earlier);
    assert_eq!(read(&place, "earlier.pt"), earlier);
    assert_eq!(read(&place, "notes.txt"), b"mine");
    // One that was saved before is.
    let tiny = fixture("tiny.pth");
    for steps in ["1", "2"] {
        let args = ["--checkpoint", &*tiny, "--size", TINY, "--steps", steps];
        finetune(&place, &[&args[..], &["--save", "new/model.pth"]].concat());
    }
}

#[test]
fn saving_changes_nothing_of_how_another_checkpoint_is_read() {
    let place = Place::new();
    let tiny = fixture("tiny.pth");
    for name in ["mine", "above", "above/mine"] {
        std::fs::create_dir(place.path().join(name)).unwrap();
    }
    for name in ["mine/other.pth", "above/mine/other.pth"] {
        std::fs::copy(&tiny, place.path().join(name)).unwrap();
    }
    for (to, other) in [
        ("mine/trained.pth", "mine/other.pth"),
        ("above/trained.pth", "above/mine/other.pth"),
    ] {
        let said = refused(&place, &tiny, &["--size", TINY, "--save", to]);
        assert!(
            said.contains(other) && said.contains("a folder of its own"),
            "{said}"
        );
    }
    // A safetensors file says by itself what it is.
    copied(&place, "hf-tied-safetensors");
    let args = ["--checkpoint", "m", "--save", "mine/trained.safetensors"];
    let losses = finetune(&place, &args);
    assert!(!place.path().join("mine/config.json").exists());
    let again = finetune(&place, &["--checkpoint", "mine/trained.safetensors"]);
    assert_eq!(again[0], losses[1]);
}

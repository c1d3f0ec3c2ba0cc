//! The folder of checkpoints: two who read one file in different ways do not meet, and what a user put there stays.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use common::{Place, TINY, fixture};

/// The tokens that a generation tells.
fn told(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Folders with digests.
fn made(place: &Place) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place.path().join("checkpoints")).unwrap();
    let folders = entries.map(|entry| entry.unwrap().path());
    folders
        .filter(|folder| folder.join("digests.json").exists())
        .collect()
}

#[test]
fn different_readings_of_one_file_at_a_time_are_each_their_own() {
    let tiny = fixture("tiny.pth");
    let sizes = [1, 2, 3, 4].map(|heads| format!("v257-c64-e48-l2-h{heads}"));
    let readings: Vec<Vec<&str>> = sizes
        .iter()
        .flat_map(|size| {
            [
                vec!["--size", &**size],
                vec!["--size", &**size, "--cast", "f16"],
            ]
        })
        .collect();
    let generate = |place: &Place, reading: &[&str]| {
        // One that reads a format of its own, which is made in the folder.
        let args = [
            "generate",
            "--checkpoint",
            &tiny,
            "--tokens",
            "1,2,3",
            "--experiment",
            "per-tensor",
        ];
        place.command(&[&args[..], reading].concat())
    };
    let alone = |reading: &Vec<&str>| told(generate(&Place::new(), reading).output().unwrap());
    let expected: Vec<String> = readings.iter().map(alone).collect();
    assert!(expected.iter().any(|tokens| *tokens != expected[0]));
    let place = Place::new();
    for _ in 0..3 {
        let start = |reading: &Vec<&str>| {
            let mut command = generate(&place, reading);
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let children: Vec<_> = readings.iter().map(start).collect();
        for (child, expected) in children.into_iter().zip(&expected) {
            assert_eq!(told(child.wait_with_output().unwrap()), *expected);
        }
    }
    assert_eq!(made(&place).len(), readings.len());
}

#[test]
fn a_reading_with_another_text_of_its_layout_file_is_another_reading() {
    let place = Place::new();
    let tiny = fixture("tiny.pth");
    let book = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/gpt2/src/layout/book.toml"),
    )
    .unwrap();
    let args = [
        "prepare",
        "--from",
        &*tiny,
        "--size",
        TINY,
        "--format",
        "safetensors",
    ];
    for (text, folders) in [
        (book.clone(), 1),
        (book.clone(), 1),
        (book + "\n# mine\n", 2),
    ] {
        place.write("mine.toml", &text);
        told(place.run(&[&args[..], &["--layout", "mine.toml"]].concat()));
        assert_eq!(made(&place).len(), folders);
    }
}

#[test]
fn what_a_user_put_into_a_prepared_folder_stays_there() {
    let place = Place::new();
    std::fs::copy(fixture("tiny.pth"), place.path().join("tiny.pth")).unwrap();
    let args = ["prepare", "--from", "tiny.pth", "--size", TINY];
    let hugging_face = [&args[..], &["--as", "hugging-face"]].concat();
    let sharded = [&args[..], &["--format", "sharded"]].concat();
    let printed = |args: &[&str]| {
        let told = told(place.run(args));
        let folder = told.lines().find(|line| line.starts_with("checkpoints"));
        place.path().join(folder.unwrap())
    };
    let folders = [printed(&hugging_face), printed(&sharded)];
    let mine = folders
        .each_ref()
        .map(|folder| folder.join("tokenizer.json"));
    for file in &mine {
        std::fs::write(file, "mine").unwrap();
    }
    let check = |after: &str| {
        for file in &mine {
            let text = std::fs::read_to_string(file).ok();
            assert_eq!(text.as_deref(), Some("mine"), "{after}: {}", file.display());
        }
    };
    assert_eq!(printed(&hugging_face), folders[0]);
    check("a second preparation");
    let generate = [
        "generate",
        "--checkpoint",
        "tiny.pth",
        "--size",
        TINY,
        "--tokens",
        "1",
    ];
    told(place.run(&[&generate[..], &["--cast", "f16"]].concat()));
    check("another reading");
    // Its time is another now, and what was made of it is void.
    let file = std::fs::File::options()
        .write(true)
        .open(place.path().join("tiny.pth"))
        .unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    told(place.run(&generate));
    check("a change of the source");
    assert!(!folders[0].join("model.safetensors").exists());
    assert_eq!(printed(&hugging_face), folders[0]);
    assert_eq!(printed(&sharded), folders[1]);
    check("a preparation of the changed source");
    for folder in folders {
        let folder = folder.to_str().unwrap().to_owned();
        told(place.run(&["generate", "--checkpoint", &folder, "--tokens", "1"]));
    }
}

#[cfg(feature = "train")]
#[test]
fn nothing_is_saved_in_a_folder_that_is_made_anew_when_its_source_changes() {
    let place = Place::new();
    let tiny = fixture("tiny.pth");
    let args = [
        "prepare",
        "--from",
        &*tiny,
        "--size",
        TINY,
        "--format",
        "safetensors",
    ];
    told(place.run(&args));
    let folder = made(&place).remove(0);
    for name in ["mine.pth", "new/mine.pth"] {
        let path = folder.join(name);
        let path = path.to_str().unwrap();
        let args = [
            "finetune",
            "--checkpoint",
            &*tiny,
            "--size",
            TINY,
            "--tokens",
            "1,2,3",
        ];
        let output = place.run(&[&args[..], &["--save", path]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("save it elsewhere"), "{said}");
    }
}

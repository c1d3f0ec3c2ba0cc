//! What is no checkpoint is told for what it is, at once, with what to do about it.

use std::path::Path;

use checkpoint::{Checkpoint, Dtype, Error, Foreign, Format, TensorMeta, write};

fn kind(path: &Path) -> Foreign {
    match Checkpoint::open(path) {
        Err(Error::Foreign { kind, path: named }) => {
            assert_eq!(named, path);
            kind
        }
        other => panic!("{}: {other:?}", path.display()),
    }
}

fn pointer() -> String {
    format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 548105171\n",
        "0".repeat(64)
    )
}

fn one(name: &str) -> [TensorMeta; 1] {
    [TensorMeta {
        name: name.to_owned(),
        dtype: Dtype::F32,
        shape: vec![2],
    }]
}

fn save(path: &Path, tensors: &[TensorMeta]) {
    write(path, Format::Safetensors, tensors, &mut |_, sink| {
        sink(&[1; 8])
    })
    .unwrap();
}

#[test]
fn a_file_that_is_no_checkpoint_is_told_by_its_first_bytes_and_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = vec![b'x'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let lfs = Foreign::LfsPointer {
        bytes: Some(548_105_171),
    };
    let pointer = pointer();
    let cases: Vec<(&str, &[u8], Foreign)> = vec![
        ("model.safetensors", b"", Foreign::Empty),
        ("model.safetensors", &[0; 100], Foreign::Zeros),
        ("model.safetensors", pointer.as_bytes(), lfs),
        ("model.bin", b"\n<!DOCTYPE html><html>", Foreign::WebPage),
        (
            "model.bin",
            b"<?xml version='1.0'?><Error>",
            Foreign::WebPage,
        ),
        (
            "model.bin",
            b"\x1f\x8b\x08\0",
            Foreign::Compressed("gunzip"),
        ),
        (
            "model.bin",
            b"\x28\xb5\x2f\xfd\0",
            Foreign::Compressed("zstd -d"),
        ),
        ("model.tar", &tar, Foreign::Archive(None)),
        ("model.bin", b"GGUF\x03\0\0\0", Foreign::Gguf),
        ("model.bin", b"\x89HDF\r\n\x1a\n", Foreign::Hdf5),
        ("model.bin", b"\x93NUMPY\x01\0", Foreign::NumPy),
        ("model.bin", b"\x08\x08\x12\x07pytorch\x1a\0", Foreign::Onnx),
        (
            "model.pkl",
            b"\x80\x04\x95\0\0\0\0\0\0\0\0}.",
            Foreign::Pickle,
        ),
        (
            "model.ckpt.data-00000-of-00001",
            b"\x8c\x9a\xff\0",
            Foreign::TensorFlow,
        ),
        ("model.ckpt.index", b"\0\0\x1b\xff", Foreign::TensorFlow),
        ("model.mpk", b"\x82\xa8metadata", Foreign::BurnRecord),
        (
            "config.json",
            b"{\"a\":{\"b\":1}}",
            Foreign::Json("the configuration of a model"),
        ),
        (
            "tokenizer.json",
            b"{\"version\": \"1.0\"}",
            Foreign::Json("a part of a tokenizer"),
        ),
        // A brace where a header of safetensors has it.
        (
            "any.json",
            b"{\"dims\":{\"a\":1}}",
            Foreign::Json("a text in JSON"),
        ),
        ("merges.txt", b"#version: 0.2\n\xc4\xa0 t\n", Foreign::Text),
        ("noise", b"\xde\xad\xbe\xef\0\x01", Foreign::Unknown),
    ];
    for (name, bytes, expected) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(kind(&path), expected, "{name}");
        let text = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(
            text.contains("is no checkpoint") && text.contains(name),
            "{text}"
        );
    }
}

#[test]
fn every_protocol_of_the_legacy_format_is_told() {
    let folder = tempfile::tempdir().unwrap();
    const MAGIC: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
    for start in [&b"\x80\x02"[..], b"\x80\x04\x95\x0e\0\0\0\0\0\0\0"] {
        let path = folder.path().join("legacy.pth");
        std::fs::write(&path, [start, MAGIC].concat()).unwrap();
        assert_eq!(kind(&path), Foreign::LegacyTorch);
    }
}

#[test]
fn zips_of_other_things_are_told_by_what_is_in_them() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    for (members, expected) in [
        (&["wte.npy", "wpe.npy"][..], Foreign::NumPy),
        (
            &["metadata.json", "config.json", "model.weights.h5"],
            Foreign::Keras,
        ),
        (
            &["readme.md", "model.pth"],
            Foreign::Archive(Some("model.pth".to_owned())),
        ),
        (&[], Foreign::Archive(None)),
    ] {
        let path = folder.path().join("model.bin");
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        for member in members {
            let options = zip::write::SimpleFileOptions::default();
            zip.start_file(*member, options).unwrap();
            zip.write_all(b"x").unwrap();
        }
        zip.finish().unwrap();
        assert_eq!(kind(&path), expected);
    }
}

#[test]
fn a_zip_with_two_checkpoints_is_refused_and_what_macos_adds_is_not_one() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pth");
    let save = |members: &[&str]| {
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        for member in members {
            let options = zip::write::SimpleFileOptions::default();
            zip.start_file(*member, options).unwrap();
            zip.write_all(b"\x80\x02}.").unwrap();
        }
        zip.finish().unwrap();
    };
    save(&[
        "aux/mydata.pkl",
        "__MACOSX/model/._data.pkl",
        "model/data.pkl",
    ]);
    assert_eq!(Checkpoint::open(&path).unwrap().tensors(), []);
    save(&["a/data.pkl", "b/data.pkl"]);
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("two checkpoints, `a/` and `b/`"), "{error}");
}

#[test]
fn a_folder_that_is_no_checkpoint_is_told_by_its_names() {
    for (names, expected) in [
        (
            &["adapter_config.json", "adapter_model.safetensors"][..],
            Foreign::Adapter,
        ),
        (&[".metadata", "__0_0.distcp"], Foreign::DistributedTorch),
        (&["latest", "zero_to_fp32.py"], Foreign::DeepSpeed),
        (
            &["checkpoint", "model.ckpt.index", "hparams.json"],
            Foreign::TensorFlow,
        ),
        (&["config.json", "gpt2.Q4_K_M.gguf"], Foreign::Gguf),
        (&["config.json", "tf_model.h5"], Foreign::Hdf5),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        assert_eq!(kind(folder.path()), expected, "{names:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ckpt.pt"), b"x").unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("such as `ckpt.pt`"), "{error}");
}

#[test]
fn an_adapter_is_told_from_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let named = folder.path().join("adapter_model.safetensors");
    save(&named, &one("base_model.model.transformer.wte.weight"));
    assert_eq!(kind(&named), Foreign::Adapter);
    let path = folder.path().join("model.safetensors");
    save(
        &path,
        &one("base_model.model.h.0.attn.c_attn.lora_A.weight"),
    );
    assert_eq!(kind(&path), Foreign::Adapter);
    // A model with an adapter in it has its own weights, too.
    let both = [one("h.0.attn.c_attn.lora_A.weight"), one("wte.weight")].concat();
    save(&path, &both);
    assert_eq!(Checkpoint::open(&path).unwrap().tensors().len(), 2);
}

#[test]
fn a_pointer_of_git_lfs_in_place_of_a_shard_is_named() {
    let folder = tempfile::tempdir().unwrap();
    save(&folder.path().join("model-1.safetensors"), &one("a"));
    let shard = folder.path().join("model-2.safetensors");
    std::fs::write(&shard, pointer()).unwrap();
    std::fs::write(
        folder.path().join("model.safetensors.index.json"),
        r#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}"#,
    )
    .unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert!(
        matches!(&error, Error::Foreign { path, kind: Foreign::LfsPointer { .. } } if *path == shard),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn pipes_sockets_and_devices_are_refused_at_once() {
    use checkpoint::Special;

    fn special(path: &Path) -> (std::path::PathBuf, Special) {
        match Checkpoint::open(path) {
            Err(Error::NotRegular { path, special }) => (path, special),
            other => panic!("{other:?}"),
        }
    }
    let pipe = |path: &Path| {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    pipe(&path);
    assert_eq!(special(&path), (path.clone(), Special::Pipe));
    // Within a folder of a file for each tensor.
    assert_eq!(special(folder.path()), (path.clone(), Special::Pipe));
    // In place of a shard, and of an index.
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, r#"{"weight_map":{"a":"model.safetensors"}}"#).unwrap();
    assert_eq!(special(folder.path()), (path.clone(), Special::Pipe));
    assert_eq!(special(&index), (path.clone(), Special::Pipe));
    std::fs::remove_file(&index).unwrap();
    pipe(&index);
    assert_eq!(special(&index), (index.clone(), Special::Pipe));
    // Beside a file that is right, it is of no interest.
    let right = folder.path().join("right.safetensors");
    save(&right, &one("a"));
    assert!(Checkpoint::open(&right).is_ok());

    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert_eq!(special(&socket).1, Special::Socket);
    assert_eq!(special(Path::new("/dev/null")).1, Special::Device);
    let inner = tempfile::tempdir().unwrap();
    std::fs::create_dir(inner.path().join("a.safetensors")).unwrap();
    assert_eq!(special(inner.path()).1, Special::Folder);
}

#[test]
fn names_in_a_file_cannot_write_to_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let header = r#"{"a\u001b[2J\nerror: b":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend([0; 8]);
    std::fs::write(&path, file).unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(!error.contains(char::is_control), "{error}");
    assert!(error.contains(r"`a\u{1b}[2J\nerror: b`"), "{error}");
    // One that is asked for.
    save(&path, &one("a"));
    let checkpoint = Checkpoint::open(&path).unwrap();
    let error = checkpoint
        .tensor("\u{1b}[2J", &[2])
        .unwrap_err()
        .to_string();
    assert!(!error.contains(char::is_control), "{error}");
}

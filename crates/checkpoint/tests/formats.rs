//! What is written is what is read, in every format; what is damaged is refused.

use std::path::{Path, PathBuf};
use std::process::Command;

use checkpoint::{
    Checkpoint, Digest, Dtype, Error, Format, Mapped, Synthetic, TensorMeta, Written, write,
};

const WEIGHTS: Synthetic = Synthetic {
    seed: 7,
    centre: 0.0,
    spread: 1.0,
};

fn tensors(dtype: Dtype) -> Vec<TensorMeta> {
    let meta = |name: &str, shape: &[usize]| TensorMeta {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    };
    vec![
        meta("tok_emb.weight", &[37, 8]),
        meta("final_norm.scale", &[8]),
        meta("a", &[1, 1]),
    ]
}

fn make(folder: &Path, format: Format, dtype: Dtype) -> (PathBuf, Written) {
    let path = folder.join(format.file_name());
    let written = write(&path, format, &tensors(dtype), &mut |meta, sink| {
        WEIGHTS.fill(meta, sink)
    });
    (path, written.unwrap())
}

#[test]
fn every_format_and_dtype_is_read_as_it_was_written() {
    for dtype in Dtype::ALL {
        let mut digests: Vec<Vec<(String, Digest)>> = Vec::new();
        for format in Format::plain() {
            let folder = tempfile::tempdir().unwrap();
            let (path, written) = make(folder.path(), format, dtype);
            let checkpoint = Checkpoint::open(&path).unwrap();
            assert_eq!(
                (checkpoint.format(), checkpoint.dtype().unwrap()),
                (format, dtype)
            );
            // SAFETY: nobody else knows of the folder.
            let mapped = unsafe { Mapped::new(&checkpoint) }.unwrap();
            for (meta, (name, digest)) in tensors(dtype).iter().zip(&written.digests) {
                let tensor = checkpoint.tensor(&meta.name, &meta.shape).unwrap();
                assert_eq!((&meta.name, tensor.bytes()), (name, meta.bytes()));
                assert_eq!(tensor.digest().unwrap(), *digest);
                let rows = 0..meta.shape[0];
                let mut buffer = vec![0; tensor.bytes() as usize];
                mapped.copy_rows(tensor, rows.clone(), &mut buffer);
                assert_eq!(Digest::of(&buffer), *digest);
                tensor.read_rows(rows, &mut buffer).unwrap();
                assert_eq!(Digest::of(&buffer), *digest);
            }
            digests.push(written.digests);
        }
        assert!(
            digests.iter().all(|of_format| *of_format == digests[0]),
            "formats differ"
        );
    }
}

#[test]
fn rows_are_the_part_of_the_whole_that_they_should_be() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = make(folder.path(), Format::Safetensors, Dtype::F32);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let table = checkpoint.tensor("tok_emb.weight", &[37, 8]).unwrap();
    let mut whole = vec![0; table.bytes() as usize];
    table.read_rows(0..37, &mut whole).unwrap();
    let mut some = vec![0; 5 * 8 * 4];
    table.read_rows(10..15, &mut some).unwrap();
    assert_eq!(some, whole[10 * 32..15 * 32]);
}

#[test]
fn the_same_seed_gives_the_same_file_and_another_gives_another() {
    for format in Format::plain() {
        let [a, b, c] = [7, 7, 8].map(|seed| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(format.file_name());
            let weights = Synthetic { seed, ..WEIGHTS };
            write(&path, format, &tensors(Dtype::F32), &mut |meta, sink| {
                weights.fill(meta, sink)
            })
            .unwrap();
            match format {
                Format::PerTensor => std::fs::read(path.join("a.safetensors")).unwrap(),
                Format::Sharded | Format::ShardedPth => {
                    let files = std::fs::read_dir(path).unwrap().flatten();
                    let mut files: Vec<_> = files.map(|entry| entry.path()).collect();
                    files.sort();
                    files
                        .iter()
                        .flat_map(|file| std::fs::read(file).unwrap())
                        .collect()
                }
                _ => std::fs::read(path).unwrap(),
            }
        });
        assert!(a == b && a != c, "{format}");
    }
}

#[test]
fn a_file_cut_off_anywhere_is_refused_or_its_tensors_are_whole() {
    for format in [Format::Safetensors, Format::Pth] {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = make(folder.path(), format, Dtype::F32);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = Checkpoint::open(&path)
                .expect_err("a truncated file was opened")
                .to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}

#[test]
fn a_per_tensor_folder_with_a_damaged_file_is_refused_by_that_files_name() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = make(folder.path(), Format::PerTensor, Dtype::F32);
    let one = path.join("final_norm.scale.safetensors");
    let whole = std::fs::read(&one).unwrap();
    std::fs::write(&one, &whole[..whole.len() - 1]).unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("final_norm.scale.safetensors"), "{error}");
}

#[test]
fn an_index_and_its_files_must_agree() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = make(folder.path(), Format::Sharded, Dtype::F32);
    let index = path.join("model.safetensors.index.json");
    let whole = std::fs::read_to_string(&index).unwrap();
    let count = Checkpoint::open(&path).unwrap().tensors().len();
    // By the folder, or by the index itself.
    assert_eq!(Checkpoint::open(&index).unwrap().tensors().len(), count);
    let first = "model-00001-of-";
    let cases = [
        (
            whole.replacen(first, "../model-00001-of-", 1),
            "no file of its own folder",
        ),
        (
            whole.replacen(first, "/etc/model-00001-of-", 1),
            "no file of its own folder",
        ),
        (whole.replacen(first, "absent-", 1), "absent-"),
        ("{".to_owned(), "no index of a sharded checkpoint"),
    ];
    let files = std::fs::read_dir(&path).unwrap().flatten();
    let mut names: Vec<String> = files
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name.starts_with(first))
        .collect();
    let name = names.remove(0);
    for (text, expected) in cases {
        std::fs::write(&index, text).unwrap();
        let error = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(
            error.contains(expected),
            "{error}\nshould contain {expected}"
        );
    }
    std::fs::write(&index, &whole).unwrap();
    std::fs::remove_file(path.join(&name)).unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains(&name), "{error}");
}

#[test]
fn what_is_no_checkpoint_is_refused_with_what_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[u8], &str); 4] = [
        ("text", b"hello, world", "no checkpoint"),
        ("empty", b"", "no checkpoint"),
        (
            "legacy.pth",
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
            "legacy",
        ),
        ("zip", b"PK\x03\x04 and no more", "no valid .pth"),
    ];
    for (name, bytes, expected) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = Checkpoint::open(folder.path().join("absent")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    let error = Checkpoint::open(tempfile::tempdir().unwrap().path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("no per-tensor checkpoint"), "{error}");
}

#[test]
fn a_failed_write_leaves_nothing_under_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let failed = write(
        &path,
        Format::Safetensors,
        &tensors(Dtype::F32),
        &mut |_, sink| sink(b"short"),
    );
    assert!(
        failed
            .unwrap_err()
            .to_string()
            .contains("came with 5 bytes")
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Needs PyTorch: `pip install torch`, for the interpreter that `PYTHON` names (`python3` otherwise). Says so
/// where it is not there.
#[test]
fn pytorch_opens_what_is_written_here_with_weights_only() {
    const SCRIPT: &str = "
import sys, torch
state = torch.load(sys.argv[1], weights_only=True)
for name, tensor in state.items():
    data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    print(name, str(tensor.dtype), list(tensor.shape), sum(data) if data else 0, sep='|')
";
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_torch = Command::new(&python).args(["-c", "import torch"]).output();
    if !has_torch.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} has no PyTorch");
        return;
    }
    for (dtype, torch_name) in [
        (Dtype::F32, "float32"),
        (Dtype::F16, "float16"),
        (Dtype::Bf16, "bfloat16"),
        (Dtype::I8, "int8"),
        (Dtype::F64, "float64"),
        (Dtype::I64, "int64"),
        (Dtype::I32, "int32"),
        (Dtype::I16, "int16"),
        (Dtype::U8, "uint8"),
        (Dtype::Bool, "bool"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = make(folder.path(), Format::Pth, dtype);
        let output = Command::new(&python)
            .args(["-c", SCRIPT])
            .arg(&path)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let checkpoint = Checkpoint::open_any(&path, None).unwrap();
        let expected = tensors(dtype).into_iter().map(|meta| {
            let mut sum = 0;
            let tensor = checkpoint.find_any(&meta.name).unwrap();
            let add = |piece: &[u8]| {
                sum += piece.iter().map(|&byte| u64::from(byte)).sum::<u64>();
                Ok::<_, Error>(())
            };
            tensor.read_in_pieces(64, add).unwrap();
            format!("{}|torch.{torch_name}|{:?}|{sum}\n", meta.name, meta.shape)
        });
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected.collect::<String>()
        );
    }
}

#[test]
fn metadata_of_null_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let header = br#"{"__metadata__":null,"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend([0; 4]);
    std::fs::write(&path, file).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap().tensors().len(), 1);
}

//! Files that lie: each is an error that names the file, before memory is taken for what it announces, and never a panic.
//! In a test binary of its own, for its allocator counts.

mod heap;

use std::io::Write;
use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, Dtype, Format, TensorMeta, write};
use heap::peak_of;

type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), checkpoint::Error> + 'a;

/// The errors of a checkpoint that is opened and, should that work, read through, whatever its tensors' dtypes.
fn refused(path: &Path) -> Result<(), String> {
    let checkpoint = Checkpoint::open_any(path, None).map_err(|error| error.to_string())?;
    for tensor in checkpoint.all() {
        // What a file of this size can hold, however it is shared.
        if tensor.bytes() <= 1 << 22 {
            tensor.digest().map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn safetensors(folder: &Path, header: &str, data_bytes: usize) -> PathBuf {
    let path = folder.join("model.safetensors");
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data_bytes, 0);
    std::fs::write(&path, file).unwrap();
    path
}

#[test]
fn safetensors_headers_that_lie_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let tensor = |shape: &str, start: u64, end: u64| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let one = |shape, start, end| format!(r#"{{"a":{}}}"#, tensor(shape, start, end));
    let two = |b: String| format!(r#"{{"a":{},"b":{b}}}"#, tensor("[2]", 0, 8));
    let huge = u64::MAX - 7;
    for (header, data_bytes, expected) in [
        (one("[2]", 0, 8), 7, "truncated"),
        (one("[2]", 0, 8), 9, "no tensor accounts for"),
        (one("[3]", 0, 8), 8, "invalid"),
        (one("[2]", 8, 0), 8, "invalid"),
        (one("[2]", 4, 12), 12, "invalid"),
        (one("[4611686018427387904,4]", 0, 8), 8, "invalid"),
        (one("[1152921504606846976]", 0, huge), 8, "invalid"),
        (one("[0]", 0, 0), 0, "empty"),
        (two(tensor("[2]", 4, 12)), 12, "invalid"),
        (two(tensor("[2]", 12, 20)), 20, "invalid"),
        (
            format!(
                r#"{{"a":{},"a":{}}}"#,
                tensor("[2]", 0, 8),
                tensor("[2]", 0, 8)
            ),
            8,
            "`a` twice",
        ),
        ("{".to_owned(), 0, "invalid"),
        ("[]".to_owned(), 0, "no checkpoint"),
        (
            r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#.to_owned(),
            8,
            "invalid",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#.to_owned(),
            8,
            "invalid",
        ),
    ] {
        let path = safetensors(folder.path(), &header, data_bytes);
        let error = refused(&path).expect_err(&header);
        assert!(
            error.contains(expected) && error.contains("model.safetensors"),
            "{header}: {error}"
        );
    }
    // A length that no file has, and one that the format does not allow.
    for length in [u64::MAX, 1 << 60, 200_000_000, 9] {
        let path = folder.path().join("model.safetensors");
        let mut file = length.to_le_bytes().to_vec();
        file.extend(b"{\"a\":1}");
        std::fs::write(&path, file).unwrap();
        let error = refused(&path).unwrap_err();
        assert!(error.contains("truncated"), "{length}: {error}");
    }
}

/// A `.pth` with this pickle, and one storage of so many bytes.
fn pth(folder: &Path, pickle: &[u8], storage_bytes: usize, compressed: bool) -> PathBuf {
    let path = folder.join("model.pth");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("model/data.pkl", stored).unwrap();
    zip.write_all(pickle).unwrap();
    let name = if compressed {
        "model/other"
    } else {
        "model/data/0"
    };
    zip.start_file(name, stored).unwrap();
    zip.write_all(&vec![0; storage_bytes]).unwrap();
    zip.finish().unwrap();
    path
}

/// A state dict of one tensor `a`: its offset, shape and strides.
fn pickle_of(storage: &str, offset: u64, shape: &[u64], strides: &[u64]) -> Vec<u8> {
    let int = |value: u64| {
        let mut bytes = vec![0x8a, 9];
        bytes.extend(value.to_le_bytes());
        bytes.push(0);
        // Where it fits, as Python would write it; nine bytes are a number that no reader here takes.
        if value <= i64::MAX as u64 {
            bytes = vec![0x8a, 8];
            bytes.extend(value.to_le_bytes());
        }
        bytes
    };
    let tuple = |values: &[u64]| {
        let mut bytes = b"(".to_vec();
        values.iter().for_each(|&value| bytes.extend(int(value)));
        bytes.push(b't');
        bytes
    };
    let text = |text: &str| {
        let mut bytes = vec![b'X'];
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(text.bytes());
        bytes
    };
    let mut out = b"\x80\x02}(".to_vec();
    out.extend(text("a"));
    out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    out.extend(text("storage"));
    out.extend(format!("ctorch\n{storage}\n").bytes());
    out.extend(text("0"));
    out.extend(text("cpu"));
    out.extend(int(2));
    out.extend(b"tQ");
    out.extend(int(offset));
    out.extend(tuple(shape));
    out.extend(tuple(strides));
    out.extend(b"\x89}tRu.");
    out
}

#[test]
fn tensors_in_an_object_or_a_list_are_told_with_what_holds_them() {
    let folder = tempfile::tempdir().unwrap();
    let pickle = pickle_of("FloatStorage", 0, &[4], &[1]);
    // The dictionary alone, without the protocol before it and the full stop behind it.
    let dictionary = &pickle[2..pickle.len() - 1];
    let object = |class: &str| {
        let class = format!("c{class}\n");
        [class.as_bytes(), b")\x81", dictionary, b"b"].concat()
    };
    let under_a_key = [&b"}X\x03\0\0\0net"[..], &object("my\nNet"), b"s"].concat();
    // A tensor, out of the dictionary: behind the key that is opened with it, and before what sets it.
    let tensor = &dictionary[8..dictionary.len() - 1];
    let pair = [b"(X\x01\0\0\0a", tensor, b"t"].concat();
    for (what, expected) in [
        (
            object("types\nSimpleNamespace"),
            "an object of the class types.SimpleNamespace",
        ),
        (under_a_key, "an object of the class my.Net"),
        ([b"](", tensor, b"e"].concat(), "a list"),
        ([b"](", &pair[..], b"e"].concat(), "a list"),
        ([b"(", tensor, b"t"].concat(), "a tuple"),
    ] {
        let pickle = [b"\x80\x02", &what[..], b"."].concat();
        let error = refused(&pth(folder.path(), &pickle, 64, false)).unwrap_err();
        assert!(
            error.contains(expected) && error.contains("model.state_dict()"),
            "{error}\nshould contain {expected}"
        );
    }
}

#[test]
fn tensors_that_reach_out_of_their_storage_are_refused_whatever_their_shape_and_strides() {
    let folder = tempfile::tempdir().unwrap();
    let open = |offset, shape: &[u64], strides: &[u64]| {
        let pickle = pickle_of("FloatStorage", offset, shape, strides);
        refused(&pth(folder.path(), &pickle, 64, false))
    };
    // The guard: these are right.
    assert_eq!(open(0, &[4, 4], &[4, 1]), Ok(()));
    assert_eq!(open(0, &[4, 4], &[1, 4]), Ok(()));
    assert_eq!(open(1, &[2, 2], &[8, 1]), Ok(()));
    assert_eq!(open(15, &[100], &[0]), Ok(()));
    let most = i64::MAX as u64;
    for (offset, shape, strides) in [
        (1, &[4, 4][..], &[4, 1][..]),
        (0, &[4, 4], &[5, 1]),
        (16, &[1], &[1]),
        (most, &[1], &[1]),
        (0, &[most, most], &[most, 1]),
        (0, &[1 << 60], &[0]),
        (0, &[2, 1 << 60], &[most, 1]),
        (0, &[1 << 32, 1 << 32], &[0, 0]),
        (0, &[0], &[1]),
        (u64::MAX, &[1], &[1]),
        (0, &[4, 4], &[1]),
    ] {
        let error =
            open(offset, shape, strides).expect_err(&format!("{offset} {shape:?} {strides:?}"));
        assert!(
            error.contains("`a`") && error.contains("model.pth"),
            "{error}"
        );
    }
}

#[test]
fn pickles_that_would_execute_grow_or_refer_to_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let storage = |pickle: &[u8], compressed| refused(&pth(folder.path(), pickle, 64, compressed));
    let right = pickle_of("FloatStorage", 0, &[4], &[1]);
    let error = storage(&right, true).unwrap_err();
    assert!(error.contains("storage 0, which is missing"), "{error}");
    let error = storage(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", false).unwrap_err();
    assert!(error.contains("no state dict"), "{error}");
    // Values without end, and parameters in parameters.
    let error = storage(
        &[b"\x80\x02".to_vec(), vec![b'N'; 5_000_000]].concat(),
        false,
    )
    .unwrap_err();
    assert!(error.contains("more than 4194304 values"), "{error}");
    let mut nested = b"\x80\x02}(X\x01\x00\x00\x00a".to_vec();
    (0..200_000).for_each(|_| nested.extend(b"ctorch._utils\n_rebuild_parameter\n"));
    nested.push(b'N');
    (0..200_000).for_each(|_| nested.extend(b"\x85R"));
    nested.extend(b"u.");
    let _ = storage(&nested, false);
    // A list that holds itself a million times: who looked through it for each would not come to an end.
    let itself = [b"\x80\x02]q\0(", &b"h\0".repeat(1_000_000)[..], b"e."].concat();
    let error = storage(&itself, false).unwrap_err();
    assert!(error.contains("no state dict"), "{error}");
    let masks = pickle_of("BoolStorage", 0, &[4], &[1]);
    let path = pth(folder.path(), &masks, 64, false);
    assert_eq!(refused(&path), Ok(()));
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("torch.BoolStorage"), "{error}");
}

#[test]
fn a_pickle_that_unpacks_to_more_than_any_has_is_not_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.pth");
    // A stored record is as large as the file: the bomb is an entry that says so and is not. The central directory is
    // patched to announce 2^31 bytes for a pickle of a few.
    let small = pth(
        folder.path(),
        &pickle_of("FloatStorage", 0, &[4], &[1]),
        64,
        false,
    );
    let mut bytes = std::fs::read(small).unwrap();
    let at = bytes
        .windows(4)
        .position(|four| four == b"PK\x01\x02")
        .unwrap();
    for field in [20, 24] {
        bytes[at + field..at + field + 4].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    }
    std::fs::write(&path, bytes).unwrap();
    let (result, taken) = peak_of(|| refused(&path));
    assert!(result.is_err());
    assert!(
        taken < 300 << 20,
        "{taken} bytes for a file of a few hundred"
    );
}

#[cfg(unix)]
#[test]
fn links_out_of_a_folder_are_refused_and_the_hubs_cache_is_followed() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let [outside, folder] = ["outside", "folder"].map(|name| root.path().join(name));
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    let tensors = [TensorMeta {
        name: "a".to_owned(),
        dtype: Dtype::F32,
        shape: vec![2],
    }];
    let secret = outside.join("secret.safetensors");
    let mut fill =
        |_: &TensorMeta, sink: &mut dyn FnMut(&[u8]) -> Result<(), checkpoint::Error>| {
            sink(&[1; 8])
        };
    write(&secret, Format::Safetensors, &tensors, &mut fill).unwrap();
    symlink(&secret, folder.join("a.safetensors")).unwrap();
    let error = refused(&folder).unwrap_err();
    assert!(error.contains("link out of its folder"), "{error}");
    std::fs::write(
        folder.join("model.safetensors.index.json"),
        r#"{"weight_map":{"a":"a.safetensors"}}"#,
    )
    .unwrap();
    let error = refused(&folder).unwrap_err();
    assert!(error.contains("link out of its folder"), "{error}");
    // snapshots/<revision>/file → blobs/…
    let [blobs, snapshot] = ["blobs", "snapshots/0123"].map(|name| root.path().join(name));
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::copy(&secret, blobs.join("abc")).unwrap();
    symlink("../../blobs/abc", snapshot.join("model-1.safetensors")).unwrap();
    std::fs::write(
        snapshot.join("model.safetensors.index.json"),
        r#"{"weight_map":{"a":"model-1.safetensors"}}"#,
    )
    .unwrap();
    assert_eq!(refused(&snapshot), Ok(()));
}

#[test]
fn an_index_that_names_a_tensor_twice_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let index = r#"{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}"#;
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let error = refused(folder.path()).unwrap_err();
    assert!(error.contains("`a` stands there twice"), "{error}");
}

/// Checkpoints to be damaged: a small one in each format of one file that is read, and those of PyTorch's. With how many
/// changes to try on each.
fn originals(folder: &Path) -> Vec<(String, Vec<u8>, usize)> {
    let tensors = [
        ("tok_emb.weight", Dtype::F32),
        ("trf_blocks.0.norm1.scale", Dtype::F32),
        ("steps", Dtype::I64),
        ("mask", Dtype::Bool),
    ];
    let tensors = tensors.map(|(name, dtype)| TensorMeta {
        name: name.to_owned(),
        dtype,
        shape: vec![3, 2],
    });
    let mut originals = Vec::new();
    for format in [Format::Safetensors, Format::Pth, Format::Burnpack] {
        let path = folder.join(format.file_name());
        let mut fill =
            |meta: &TensorMeta, sink: &mut Sink<'_>| sink(&vec![1; meta.bytes() as usize]);
        write(&path, format, &tensors, &mut fill).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        if format == Format::Safetensors {
            // Without the padding, so that a change hits something.
            let text = String::from_utf8_lossy(&bytes[8..4096])
                .trim_end()
                .to_owned();
            let data = bytes.split_off(4096);
            bytes = (text.len() as u64).to_le_bytes().to_vec();
            bytes.extend(text.bytes());
            bytes.extend(data);
        }
        originals.push((format.file_name().to_owned(), bytes, 15_000));
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../harness/tests/fixtures");
    for case in [
        "book-masks/model.pth",
        "book-training/checkpoint.pt",
        "book-storages/model.pth",
    ] {
        let bytes = std::fs::read(fixtures.join(case)).unwrap();
        originals.push((case.replace('/', "-"), bytes, 1_000));
    }
    originals
}

#[test]
fn whatever_is_changed_in_a_file_it_is_read_or_refused_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(20261124);
    let (mut read, mut all) = (0, 0);
    for (name, original, changes) in originals(folder.path()) {
        let path = folder.path().join(&name);
        for _ in 0..changes {
            let mut bytes = original.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(0..bytes.len());
                match random.u8(0..6) {
                    0 => bytes.truncate(at.max(1)),
                    1 => bytes[at] ^= 1 << random.u8(0..8),
                    2 => bytes[at] = random.choice([0, 1, 0x7f, 0x80, 0xff]).unwrap(),
                    3 => {
                        // Part of it once more.
                        let end = (at + random.usize(1..64)).min(bytes.len());
                        let part = bytes[at..end].to_vec();
                        bytes.splice(at..at, part);
                    }
                    4 => drop(bytes.drain(at..(at + random.usize(1..16)).min(bytes.len()))),
                    _ => bytes[at] = random.u8(b'0'..=b'9'),
                }
                if bytes.is_empty() {
                    bytes.push(0);
                }
            }
            std::fs::write(&path, bytes).unwrap();
            let (result, taken) = peak_of(|| refused(&path));
            assert!(taken < 320 << 20, "{taken} bytes");
            if let Err(error) = &result {
                assert!(error.contains(&name), "{error}");
            }
            read += usize::from(result.is_ok());
            all += 1;
        }
    }
    // The guard: neither everything nor nothing was refused.
    assert!(read > all / 100 && read < all, "{read} of {all} were read");
}

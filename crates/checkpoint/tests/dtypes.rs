//! Tensors of every dtype: what is no weight is read as it was written by whoever asks for it, and by nobody else.

use std::io::Write;
use std::path::{Path, PathBuf};

use checkpoint::{
    Checkpoint, Digest, Dtype, Error, Format, Mapped, Other, PrivateMap, Synthetic, TensorMeta,
    Unreadable, write,
};

/// Those that hold tensors as they are, in files that are opened here.
const FORMATS: [Format; 6] = [
    Format::Safetensors,
    Format::PerTensor,
    Format::Sharded,
    Format::Pth,
    Format::ShardedPth,
    Format::Burnpack,
];

const VALUES: Synthetic = Synthetic {
    seed: 7,
    centre: 0.0,
    spread: 1.0,
};

fn meta(name: &str, dtype: Dtype, shape: &[usize]) -> TensorMeta {
    TensorMeta {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    }
}

/// One of each rank that a parameter has, and one without dimensions.
fn tensors(dtype: Dtype) -> Vec<TensorMeta> {
    vec![
        meta("table", dtype, &[37, 8]),
        meta("scale", dtype, &[8]),
        meta("steps", dtype, &[]),
        meta("kernel", dtype, &[2, 3, 2, 2]),
    ]
}

fn save(path: &Path, format: Format, tensors: &[TensorMeta]) -> Result<Vec<Digest>, Error> {
    let written = write(path, format, tensors, &mut |meta, sink| {
        VALUES.fill(meta, sink)
    })?;
    Ok(written.digests.into_iter().map(|(_, one)| one).collect())
}

fn is_held(format: Format, dtype: Dtype) -> bool {
    match format {
        Format::Pth | Format::ShardedPth => !matches!(dtype, Dtype::U64 | Dtype::U32 | Dtype::U16),
        Format::Burnpack => dtype != Dtype::I8,
        _ => true,
    }
}

fn other<'a>(checkpoint: &'a Checkpoint, name: &str) -> &'a Other {
    let mut others = checkpoint.others().iter();
    others.find(|other| other.name == name).unwrap()
}

#[test]
fn every_dtype_is_read_as_it_was_written_in_every_format_scalars_included() {
    for format in FORMATS {
        for dtype in Dtype::KNOWN {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(format.file_name());
            if !is_held(format, dtype) {
                continue;
            }
            let tensors = tensors(dtype);
            let digests = save(&path, format, &tensors).unwrap();
            let checkpoint = Checkpoint::open_any(&path, None).unwrap();
            assert_eq!(checkpoint.all().count(), tensors.len(), "{format} {dtype}");
            // SAFETY: nobody else knows of the folder.
            let mapped = unsafe { Mapped::of(checkpoint.all()) }.unwrap();
            for (meta, digest) in tensors.iter().zip(&digests) {
                let found = checkpoint.find_any(&meta.name).unwrap();
                let what = format!("{format} {meta:?}");
                assert_eq!((found.dtype, &found.shape), (dtype, &meta.shape), "{what}");
                assert_eq!(found.digest().unwrap(), *digest, "{what}");
                let rows = 0..meta.shape.first().copied().unwrap_or(1);
                let mut buffer = vec![0; meta.bytes() as usize];
                mapped.copy_rows(found, rows.clone(), &mut buffer);
                assert_eq!(Digest::of(&buffer), *digest, "{what}");
                // SAFETY: as above.
                let private = unsafe { PrivateMap::new(found, rows.clone()) }.unwrap();
                assert_eq!(Digest::of(private.bytes()), *digest, "{what}");
                found.read_rows(rows, &mut buffer).unwrap();
                assert_eq!(Digest::of(&buffer), *digest, "{what}");
            }
            let listed = checkpoint.tensors().len() + checkpoint.others().len();
            let weights = if dtype.is_weight() { tensors.len() } else { 0 };
            assert_eq!(
                (listed, checkpoint.tensors().len()),
                (tensors.len(), weights)
            );
        }
    }
}

#[test]
fn a_dtype_that_a_format_has_no_word_for_is_refused_by_the_tensors_name() {
    for format in [Format::Pth, Format::ShardedPth] {
        for dtype in [Dtype::U64, Dtype::U32, Dtype::U16] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(format.file_name());
            let metas = [meta("a", Dtype::F32, &[2]), meta("ids", dtype, &[2])];
            let said = save(&path, format, &metas).unwrap_err().to_string();
            assert!(
                said.contains("`ids`") && said.contains(dtype.name()),
                "{said}"
            );
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}

#[test]
fn what_is_no_weight_is_listed_apart_and_named_as_the_file_names_its_type() {
    let words = |format, dtype| match (format, dtype) {
        (Format::Burnpack, Dtype::Bool) => None,
        (Format::Pth | Format::ShardedPth, Dtype::Bool) => Some("torch.BoolStorage"),
        (Format::Pth | Format::ShardedPth, _) => Some("torch.LongStorage"),
        (_, Dtype::Bool) => Some("BOOL"),
        _ => Some("I64"),
    };
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format.file_name());
        let metas = [
            meta("weight", Dtype::F16, &[2, 2]),
            meta("num_batches_tracked", Dtype::I64, &[]),
            meta("mask", Dtype::Bool, &[2, 2]),
        ];
        save(&path, format, &metas).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        let names: Vec<&str> = checkpoint.tensors().iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["weight"], "{format}");
        assert_eq!(checkpoint.dtype().unwrap(), Dtype::F16);
        assert_eq!(checkpoint.bytes(), 8);
        for meta in &metas[1..] {
            assert!(checkpoint.find(&meta.name).is_none());
            assert!(checkpoint.tensor(&meta.name, &meta.shape).is_err());
            let other = other(&checkpoint, &meta.name);
            if let Some(word) = words(format, meta.dtype) {
                assert_eq!(other.reason, Unreadable::Dtype(word.to_owned()), "{format}");
            }
            let found = other.tensor().unwrap();
            assert_eq!(checkpoint.find_any(&meta.name), Some(found));
            // The same bytes, as those who know no type read them.
            let bytes = other.bytes().unwrap();
            let width = meta.dtype.bytes() as usize;
            assert_eq!(bytes.shape, [&meta.shape[..], &[width]].concat());
            assert_eq!(bytes.digest().unwrap(), found.digest().unwrap(), "{format}");
        }
        let names: Vec<&str> = checkpoint.all().map(|one| &*one.name).collect();
        assert_eq!(names.len(), 3, "{format}");
        // Under another name it is another's.
        let mut others = checkpoint.others().to_vec();
        others
            .iter_mut()
            .for_each(|other| other.name.insert_str(0, "bn."));
        let renamed = checkpoint.with_others(others);
        assert!(renamed.find_any("mask").is_none());
        assert_eq!(renamed.find_any("bn.mask").unwrap().name, "bn.mask");
    }
}

#[test]
fn a_checkpoint_without_weights_is_opened_for_whoever_reads_any_dtype() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format.file_name());
        save(&path, format, &tensors(Dtype::F64)).unwrap();
        let error = Checkpoint::open(&path).unwrap_err();
        assert!(
            matches!(error, Error::NoWeights { entries: 4, .. }),
            "{error}"
        );
        Checkpoint::open_any(&path, None).unwrap();
    }
    let fixture = |name: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(name)
    };
    // Of a type that is not known here, that is an error all the same.
    let error = Checkpoint::open_any(fixture("float8.pth"), None).unwrap_err();
    assert!(matches!(error, Error::NoWeights { .. }), "{error}");
    let net = Checkpoint::open_any(fixture("other-key.pth"), Some("net")).unwrap();
    assert_eq!(net.all().count(), 2);
    let root = Checkpoint::open_any(fixture("other-key.pth"), Some("")).unwrap();
    assert_eq!(root.find_any("rng").unwrap().dtype, Dtype::U8);
}

#[test]
fn a_transposed_matrix_of_doubles_is_gathered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let metas = [meta("a", Dtype::F64, &[3, 2])];
    let bytes: Vec<u8> = (0..48).collect();
    write(&path, Format::Safetensors, &metas, &mut |_, sink| {
        sink(&bytes)
    })
    .unwrap();
    let checkpoint = Checkpoint::open_any(&path, None).unwrap();
    let transposed = checkpoint.find_any("a").unwrap().clone().transposed();
    let mut found = vec![0; 48];
    transposed.read_rows(0..2, &mut found).unwrap();
    let element = |at: usize| bytes[8 * at..8 * (at + 1)].to_vec();
    assert_eq!(found, [0, 2, 4, 1, 3, 5].map(element).concat());
}

#[test]
fn rows_outside_of_a_tensor_are_refused_and_never_those_of_its_neighbour() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let metas = ["a", "b"].map(|name| meta(name, Dtype::I32, &[4, 3]));
    save(&path, Format::Safetensors, &metas).unwrap();
    let checkpoint = Checkpoint::open_any(&path, None).unwrap();
    let tensor = checkpoint.find_any("a").unwrap();
    let transposed = tensor.clone().transposed();
    // SAFETY: nobody else knows of the folder.
    let mapped = unsafe { Mapped::of(checkpoint.all()) }.unwrap();
    let reversed = std::ops::Range { start: 2, end: 1 };
    for tensor in [tensor, &transposed] {
        let there = tensor.shape[0];
        for rows in [
            0..there + 1,
            there..there + 1,
            there + 1..there + 1,
            0..usize::MAX,
            reversed.clone(),
        ] {
            let bytes = rows.len().min(8) * tensor.row_bytes() as usize;
            let mut buffer = vec![0; bytes];
            let error = tensor.read_rows(rows.clone(), &mut buffer).unwrap_err();
            let said = error.to_string();
            assert!(
                matches!(error, Error::Outside { unit: "rows", .. }),
                "{said}"
            );
            assert!(
                said.contains(&format!("tensor `a` has {there} rows")),
                "{said}"
            );
            // SAFETY: as above.
            let private = unsafe { PrivateMap::new(tensor, rows.clone()) };
            assert!(
                matches!(private.err(), Some(Error::Outside { .. })),
                "{said}"
            );
            let copy = std::panic::AssertUnwindSafe(|| {
                mapped.copy_rows(tensor, rows.clone(), &mut buffer);
            });
            let panic = std::panic::catch_unwind(copy).unwrap_err();
            assert_eq!(*panic.downcast::<String>().unwrap(), said);
            assert!(buffer.iter().all(|&byte| byte == 0));
        }
        tensor.read_rows(there..there, &mut []).unwrap();
        mapped.copy_rows(tensor, there..there, &mut []);
    }
}

/// A safetensors file with this header, and data behind it.
fn safetensors(path: &Path, header: &str, data: &[u8]) {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    std::fs::write(path, file).unwrap();
}

#[test]
fn of_two_copies_in_two_parts_neither_is_read_unless_they_are_equal() {
    let folder = tempfile::tempdir().unwrap();
    let one = |value: u8, weight: &str| {
        let path = folder.path().join(format!("{weight}.safetensors"));
        let header = format!(
            r#"{{"{weight}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}},"steps":{{"dtype":"I64","shape":[1],"data_offsets":[4,12]}}}}"#
        );
        safetensors(&path, &header, &[&[0; 4][..], &[value; 8]].concat());
    };
    let index = r#"{"weight_map":{"a":"a.safetensors","b":"b.safetensors"}}"#;
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    for (values, is_read) in [([1, 1], true), ([1, 2], false)] {
        one(values[0], "a");
        one(values[1], "b");
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(
            (checkpoint.tensors().len(), checkpoint.others().len()),
            (2, 1)
        );
        assert_eq!(checkpoint.find_any("steps").is_some(), is_read);
        assert_eq!(checkpoint.all().count(), 2 + usize::from(is_read));
        // The first, as before anybody read them.
        assert!(other(&checkpoint, "steps").bytes().is_some());
    }
}

/// A `.pth` with this pickle, and one storage of 64 bytes.
fn pth(folder: &Path, pickle: &[u8]) -> PathBuf {
    let path = folder.join("model.pth");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("model/data.pkl", stored).unwrap();
    zip.write_all(pickle).unwrap();
    zip.start_file("model/data/0", stored).unwrap();
    zip.write_all(&std::array::from_fn::<u8, 64, _>(|at| at as u8))
        .unwrap();
    zip.finish().unwrap();
    path
}

/// A name, a storage's class or a dtype, an offset, a shape and strides.
type Pickled<'a> = (&'a str, &'a str, u32, &'a [u32], &'a [u32]);

/// A pickle of a state dict of these tensors, and of a weight `w` before them. What has a dtype and no storage's class is built by
/// `_rebuild_tensor_v3`.
fn pickle(tensors: &[Pickled<'_>]) -> Vec<u8> {
    fn int(out: &mut Vec<u8>, value: u32) {
        out.extend([0x8a, 5]);
        out.extend(value.to_le_bytes());
        out.push(0);
    }
    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.bytes());
    }
    fn tuple(out: &mut Vec<u8>, values: &[u32]) {
        out.push(b'(');
        values.iter().for_each(|&value| int(out, value));
        out.push(b't');
    }
    let mut out = b"\x80\x02}(".to_vec();
    let weight: Pickled<'_> = ("w", "FloatStorage", 0, &[1], &[1]);
    for (name, kind, offset, shape, strides) in [&[weight], tensors].concat() {
        let has_class = kind.ends_with("Storage");
        let (function, class) = match has_class {
            true => ("_rebuild_tensor_v2", kind),
            false => ("_rebuild_tensor_v3", "UntypedStorage"),
        };
        text(&mut out, name);
        out.extend(format!("ctorch._utils\n{function}\n((").bytes());
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{class}\n").bytes());
        text(&mut out, "0");
        text(&mut out, "cpu");
        int(&mut out, 64);
        out.extend(b"tQ");
        int(&mut out, offset);
        tuple(&mut out, shape);
        tuple(&mut out, strides);
        out.extend(b"\x89}");
        if !has_class {
            out.extend(format!("ctorch\n{kind}\n").bytes());
        }
        out.extend(b"tR");
    }
    out.extend(b"u.");
    out
}

#[test]
fn dtypes_that_have_no_storage_in_pytorch_are_read_by_their_own_names() {
    let folder = tempfile::tempdir().unwrap();
    let kinds = [
        ("uint16", Dtype::U16),
        ("uint32", Dtype::U32),
        ("uint64", Dtype::U64),
        ("int64", Dtype::I64),
        ("bool", Dtype::Bool),
    ];
    for (kind, dtype) in kinds {
        let path = pth(folder.path(), &pickle(&[("a", kind, 1, &[2], &[1])]));
        let checkpoint = Checkpoint::open(&path).unwrap();
        let found = checkpoint.find_any("a").unwrap();
        let width = dtype.bytes() as usize;
        let mut bytes = vec![0; 2 * width];
        found.read_rows(0..2, &mut bytes).unwrap();
        let expected: Vec<u8> = (width..3 * width).map(|at| at as u8).collect();
        assert_eq!((found.dtype, bytes), (dtype, expected));
    }
}

#[test]
fn a_tensor_that_cannot_be_read_is_listed_and_spoils_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let huge = u32::MAX;
    for (kind, offset, shape, strides, has_bytes) in [
        // Without end, in the room of one element.
        ("LongStorage", 0, &[huge, 1][..], &[0, 0][..], false),
        // Three dimensions with gaps, which are not gathered.
        ("BoolStorage", 0, &[2, 2, 2], &[16, 4, 1], true),
        // Out of their storages: nobody could read these, and the file's weights could be.
        ("uint16", 31, &[2], &[1], false),
        ("uint64", huge, &[1], &[1], false),
    ] {
        let path = pth(
            folder.path(),
            &pickle(&[("a", kind, offset, shape, strides)]),
        );
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert!(checkpoint.find("w").is_some());
        assert!(checkpoint.find_any("a").is_none(), "{kind}");
        assert_eq!(checkpoint.all().count(), 1);
        let other = other(&checkpoint, "a");
        assert_eq!(other.reason, Unreadable::Dtype(format!("torch.{kind}")));
        assert_eq!((other.tensor(), other.bytes().is_some()), (None, has_bytes));
    }
    // Of the types that have been looked at for long, one that lies makes the file a bad one.
    let path = pth(
        folder.path(),
        &pickle(&[("a", "LongStorage", 8, &[1], &[1])]),
    );
    let said = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(
        said.contains("reaches past the end of its storage"),
        "{said}"
    );
}

#[test]
fn a_name_that_stands_in_a_pickle_twice_is_of_no_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let one = ("a", "LongStorage", 0, &[1][..], &[1][..]);
    let two = ("a", "LongStorage", 1, &[1][..], &[1][..]);
    let path = pth(folder.path(), &pickle(&[one, two]));
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.others().len(), 2);
    assert!(checkpoint.find_any("a").is_none());
    // What weights are called is theirs.
    let path = pth(
        folder.path(),
        &pickle(&[("w", "LongStorage", 0, &[1], &[1])]),
    );
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.find_any("w").unwrap().dtype, Dtype::F32);
    assert_eq!(checkpoint.all().count(), 1);
}

/// A burnpack file of a weight `w` and a tensor `a` of this type, in CBOR, and of these sizes, which lies in bytes 256 to `end` of
/// the data; the file ends at byte 320 of it.
fn burnpack(path: &Path, dtype: ciborium::Value, shape: &[u64], end: u64) {
    use ciborium::Value;
    let array = |values: &[u64]| Value::Array(values.iter().map(|&one| one.into()).collect());
    let map = |entries: Vec<(&str, Value)>| {
        let entries = entries.into_iter().map(|(key, value)| (key.into(), value));
        Value::Map(entries.collect())
    };
    let tensor = |dtype, shape, offsets: [u64; 2]| {
        let offsets = ("data_offsets", array(&offsets));
        map(vec![("dtype", dtype), ("shape", array(shape)), offsets])
    };
    let weight = tensor("F32".into(), &[1], [0, 4]);
    let tensors = map(vec![("a", tensor(dtype, shape, [256, end])), ("w", weight)]);
    let mut description = Vec::new();
    ciborium::into_writer(&map(vec![("tensors", tensors)]), &mut description).unwrap();
    let mut file = b"NRUB\x01\0".to_vec();
    file.extend((description.len() as u32).to_le_bytes());
    file.extend(description);
    file.resize(file.len().next_multiple_of(256) + 320, 1);
    std::fs::write(path, file).unwrap();
}

#[test]
fn burns_booleans_are_read_where_one_is_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bpk");
    let stored = |store: &str| ciborium::Value::Map(vec![("Bool".into(), store.into())]);
    for (dtype, end, expected) in [
        (stored("Native"), 260, Some(Dtype::Bool)),
        (stored("U8"), 260, Some(Dtype::Bool)),
        (stored("U32"), 272, None),
        ("Bool".into(), 260, None),
        ("U8".into(), 260, Some(Dtype::U8)),
        // As this project keeps none, they are no weights; an integer all the same.
        ("I8".into(), 260, Some(Dtype::I8)),
        ("F64".into(), 288, Some(Dtype::F64)),
        // Of another length, and past the end of the file.
        ("F64".into(), 287, None),
        ("I64".into(), u64::MAX, None),
        ("Flex32".into(), 272, None),
    ] {
        burnpack(&path, dtype.clone(), &[4], end);
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.tensors().len(), 1, "{dtype:?}");
        assert_eq!(checkpoint.others().len(), 1, "{dtype:?}");
        let found = checkpoint.find_any("a").map(|found| found.dtype);
        assert_eq!(found, expected, "{dtype:?} {end}");
        checkpoint
            .all()
            .for_each(|tensor| drop(tensor.digest().unwrap()));
    }
    // Whole by what is said of it, and not there.
    burnpack(&path, "F64".into(), &[9], 328);
    assert!(Checkpoint::open(&path).unwrap().find_any("a").is_none());
}

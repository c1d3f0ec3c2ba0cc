//! Several files with an index: what nobody needs cannot be wrong, and a part alone says so.

use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, Dtype, Error, Format, TensorMeta, Unreadable, write};

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";
const WEIGHT_MAP: &str =
    r#"{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}"#;

/// Two files, and this index; the path of the index.
fn shards(folder: &Path, index: &str) -> PathBuf {
    for (file, name) in [(FIRST, "a"), (SECOND, "b")] {
        let tensor = TensorMeta {
            name: name.to_owned(),
            dtype: Dtype::F32,
            shape: vec![2],
        };
        let path = folder.join(file);
        write(&path, Format::Safetensors, &[tensor], &mut |_, sink| {
            sink(&[1; 8])
        })
        .unwrap();
    }
    let path = folder.join("model.safetensors.index.json");
    std::fs::write(&path, index).unwrap();
    path
}

#[test]
fn what_an_index_says_beside_its_files_is_not_read() {
    for metadata in [
        r#""metadata":{"total_size":16},"#,
        r#""metadata":{"total_size":16.0},"#,
        r#""metadata":{"total_size":"16","total_parameters":4},"#,
        r#""metadata":{"total_size":null},"#,
        r#""metadata":{"total_size":-1},"#,
        r#""metadata":null,"#,
        r#""metadata":[],"#,
        r#""version":{"a":1},"#,
        "",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let index = format!(r#"{{{metadata}"weight_map":{WEIGHT_MAP}}}"#);
        shards(folder.path(), &index);
        let checkpoint = Checkpoint::open(folder.path()).expect(metadata);
        assert_eq!(checkpoint.tensors().len(), 2, "{metadata}");
    }
}

/// Writes a part with these tensors, each of two floats of these bytes.
fn part(path: &Path, tensors: &[(&str, u8)]) {
    let metas: Vec<TensorMeta> = tensors
        .iter()
        .map(|(name, _)| TensorMeta {
            name: (*name).to_owned(),
            dtype: Dtype::F32,
            shape: vec![2],
        })
        .collect();
    write(path, Format::Safetensors, &metas, &mut |meta, sink| {
        let (_, byte) = tensors.iter().find(|(name, _)| *name == meta.name).unwrap();
        sink(&[*byte; 8])
    })
    .unwrap();
}

#[test]
fn a_tensor_in_two_parts_is_refused_with_both_unless_they_are_equal() {
    // Listed in the first of them, in the second, and in none.
    for map in [
        WEIGHT_MAP.to_owned(),
        format!(r#"{{"a":"{SECOND}","b":"{SECOND}","c":"{FIRST}"}}"#),
        format!(r#"{{"b":"{SECOND}","c":"{FIRST}"}}"#),
    ] {
        for (copy, is_equal) in [(1, true), (2, false)] {
            let folder = tempfile::tempdir().unwrap();
            shards(folder.path(), &format!(r#"{{"weight_map":{map}}}"#));
            part(&folder.path().join(FIRST), &[("a", 1), ("c", 3)]);
            part(&folder.path().join(SECOND), &[("a", copy), ("b", 1)]);
            let opened = Checkpoint::open(folder.path());
            assert_eq!(opened.is_ok(), is_equal, "{map}");
            match opened {
                Ok(opened) => assert_eq!(opened.tensors().len(), 3, "{map}"),
                Err(error) => {
                    let error = error.to_string();
                    for expected in ["`a`", FIRST, SECOND] {
                        assert!(error.contains(expected), "{map}: {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_tensor_that_lies_in_another_part_than_the_index_says_is_the_models_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let map = format!(r#"{{"a":"{SECOND}","b":"{FIRST}"}}"#);
    shards(folder.path(), &format!(r#"{{"weight_map":{map}}}"#));
    let opened = Checkpoint::open(folder.path()).unwrap();
    assert!(opened.find("a").is_some() && opened.find("b").is_some());
    assert!(opened.others().is_empty());
}

#[test]
fn a_tensor_that_is_listed_and_absent_is_missing_for_whoever_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let map = WEIGHT_MAP.replace('{', &format!(r#"{{"lm_head.weight":"{SECOND}","#));
    shards(folder.path(), &format!(r#"{{"weight_map":{map}}}"#));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert!(checkpoint.tensor("a", &[2]).is_ok());
    assert_eq!(checkpoint.others().len(), 1);
    assert!(matches!(
        &checkpoint.others()[0].reason,
        Unreadable::Missing { file, .. } if file == SECOND
    ));
    let error = checkpoint.tensor("lm_head.weight", &[2]).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("`lm_head.weight`") && error.contains(SECOND),
        "{error}"
    );
}

#[test]
fn a_file_that_an_index_names_and_that_is_not_there_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    shards(folder.path(), &format!(r#"{{"weight_map":{WEIGHT_MAP}}}"#));
    std::fs::remove_file(folder.path().join(SECOND)).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains(SECOND) && error.contains("not there"),
        "{error}"
    );
}

#[test]
fn a_part_opened_alone_says_so_and_names_its_index() {
    let folder = tempfile::tempdir().unwrap();
    let index = shards(folder.path(), &format!(r#"{{"weight_map":{WEIGHT_MAP}}}"#));
    let part = folder.path().join(FIRST);
    let checkpoint = Checkpoint::open(&part).unwrap();
    let shard = checkpoint.shard().unwrap();
    assert_eq!((shard.index.as_ref(), shard.files), (Some(&index), 2));
    assert!(shard.to_string().contains("model.safetensors.index.json"));
    assert!(Checkpoint::open(&index).unwrap().shard().is_none());
    // By its name alone, too, or by an index that calls it otherwise than files of parts are called.
    std::fs::remove_file(&index).unwrap();
    let checkpoint = Checkpoint::open(&part).unwrap();
    let shard = checkpoint.shard().unwrap();
    assert_eq!((shard.index.as_ref(), shard.files), (None, 2));
    let (x, y) = (folder.path().join("x.bin"), folder.path().join("y.bin"));
    std::fs::copy(&part, &x).unwrap();
    assert!(Checkpoint::open(&x).unwrap().shard().is_none());
    std::fs::copy(&part, &y).unwrap();
    let index = folder.path().join("pytorch_model.bin.index.json");
    std::fs::write(&index, r#"{"weight_map":{"a":"x.bin","b":"y.bin"}}"#).unwrap();
    let checkpoint = Checkpoint::open(&x).unwrap();
    assert_eq!(checkpoint.shard().unwrap().index.as_ref(), Some(&index));
}

#[cfg(unix)]
#[test]
fn a_link_to_a_part_is_a_part() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    shards(folder.path(), &format!(r#"{{"weight_map":{WEIGHT_MAP}}}"#));
    let link = elsewhere.path().join("model.safetensors");
    std::os::unix::fs::symlink(folder.path().join(FIRST), &link).unwrap();
    let checkpoint = Checkpoint::open(&link).unwrap();
    assert!(checkpoint.shard().unwrap().index.is_some());
}

#[test]
fn an_index_of_one_file_makes_no_part_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.safetensors");
    let tensor = TensorMeta {
        name: "a".to_owned(),
        dtype: Dtype::F32,
        shape: vec![2],
    };
    write(&path, Format::Safetensors, &[tensor], &mut |_, sink| {
        sink(&[1; 8])
    })
    .unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, r#"{"weight_map":{"a":"whole.safetensors"}}"#).unwrap();
    assert!(Checkpoint::open(&path).unwrap().shard().is_none());
    assert!(!matches!(
        Checkpoint::open(&index),
        Err(Error::Invalid { .. })
    ));
}

#[test]
fn a_tensor_that_lies_in_a_file_and_in_no_index_is_the_models_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let index = format!(r#"{{"weight_map":{{"a":"{FIRST}"}}}}"#);
    let path = shards(folder.path(), &index);
    let before = Checkpoint::open(&path).unwrap();
    assert!(before.find("b").is_none(), "its file is not named");
    std::fs::rename(folder.path().join(SECOND), folder.path().join(FIRST)).unwrap();
    let opened = Checkpoint::open(&path).unwrap();
    assert!(opened.find("b").is_some());
}

#[test]
fn what_cannot_be_read_in_another_part_than_the_index_says_is_there_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let map = format!(r#"{{"a":"{FIRST}","b":"{FIRST}","c":"{SECOND}"}}"#);
    shards(folder.path(), &format!(r#"{{"weight_map":{map}}}"#));
    let header = r#"{"b":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}"#;
    let mut second = (header.len() as u64).to_le_bytes().to_vec();
    second.extend(header.as_bytes());
    second.extend([0; 8]);
    std::fs::write(folder.path().join(SECOND), second).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let reason = |name: &str| {
        let mut others = checkpoint.others().iter();
        others
            .find(|other| other.name == name)
            .map(|other| other.reason.clone())
    };
    assert_eq!(reason("b"), Some(Unreadable::Dtype("F64".to_owned())));
    assert!(matches!(reason("c"), Some(Unreadable::Missing { .. })));
}

//! What programs save with PyTorch: what is not needed is skipped, what is needed is read or refused by its name. The files are
//! made by fixtures/make.py.

use std::path::PathBuf;

use checkpoint::{Checkpoint, Error, Foreign, Holds, StateDictAt, Unreadable};

const A: [f32; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
const B: [f32; 4] = [10.0, 11.0, 12.0, 13.0];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(fixture(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn values(checkpoint: &Checkpoint, name: &str, shape: &[usize]) -> Vec<f32> {
    let tensor = checkpoint.tensor(name, shape).unwrap();
    let mut values = Vec::new();
    let collect = |piece: &[u8]| {
        let (words, _) = piece.as_chunks::<4>();
        values.extend(words.iter().map(|word| f32::from_le_bytes(*word)));
        Ok::<_, Error>(())
    };
    tensor.read_in_pieces(1 << 10, collect).unwrap();
    values
}

fn is_whole(checkpoint: &Checkpoint) -> bool {
    values(checkpoint, "a", &[2, 3]) == A && values(checkpoint, "b", &[4]) == B
}

fn reason<'a>(checkpoint: &'a Checkpoint, name: &str) -> &'a Unreadable {
    let mut others = checkpoint.others().iter();
    &others.find(|other| other.name == name).unwrap().reason
}

#[test]
fn what_lies_beside_a_state_dict_does_not_matter() {
    for name in [
        "beside-defaultdict.pth",
        "beside-dict-subclass.pth",
        "beside-list-subclass.pth",
        "beside-counter.pth",
        "beside-namespace.pth",
        "beside-new-object-protocol-2.pth",
        "beside-new-object-protocol-4.pth",
        "beside-empty-subclasses-protocol-1.pth",
        "beside-numpy.pth",
        "module-beside.pth",
        "model-args.pt",
    ] {
        let checkpoint = open(name);
        assert!(is_whole(&checkpoint), "{name}");
        assert_eq!(checkpoint.tensors().len(), 2, "{name}");
    }
}

#[test]
fn whatever_acts_as_a_dictionary_is_a_state_dict() {
    for name in [
        "plain.pth",
        "is-defaultdict.pth",
        "is-dict-subclass.pth",
        "is-dict-subclass-protocol-1.pth",
        "is-protocol-5.pth",
        "usual-key-in-usual-key.pth",
    ] {
        assert!(is_whole(&open(name)), "{name}");
    }
}

#[test]
fn attributes_of_a_tensor_are_skipped() {
    for name in [
        "parameter-with-attributes.pth",
        "tensor-with-attributes.pth",
    ] {
        assert!(is_whole(&open(name)), "{name}");
    }
}

#[test]
fn a_tensor_whose_bytes_are_not_its_values_is_refused_by_its_name() {
    for (name, tensor, shape, expected) in [
        ("negative-bit.pth", "b", &[4][..], "negative bit"),
        ("tensor-subclass.pth", "a", &[2, 3], "my_training.Scaled"),
    ] {
        let checkpoint = open(name);
        assert!(checkpoint.find(tensor).is_none(), "{name}");
        let error = checkpoint.tensor(tensor, shape).unwrap_err().to_string();
        let tensor = format!("`{tensor}`");
        assert!(
            error.contains(expected) && error.contains(&tensor),
            "{error}"
        );
        assert_eq!(checkpoint.tensors().len(), 1, "{name}");
    }
}

#[test]
fn a_tensor_without_elements_is_skipped_and_those_of_zero3_are_told() {
    let checkpoint = open("empty-beside.pth");
    assert!(is_whole(&checkpoint));
    assert_eq!(
        *reason(&checkpoint, "no_rows"),
        Unreadable::Empty(vec![0, 3])
    );
    let error = Checkpoint::open(fixture("zero3.pth")).unwrap_err();
    assert!(error.to_string().contains("zero_to_fp32.py"), "{error}");
    assert!(
        matches!(&error, Error::NoWeights { entries: 2, first, .. } if first.reason == Unreadable::Empty(vec![0])),
        "{error:?}"
    );
}

#[test]
fn what_holds_no_tensor_that_can_be_read_says_why() {
    for (name, expected) in [
        ("float8.pth", "`a` is torch.float8_e4m3fn"),
        ("numpy.pth", "`a` is a NumPy array"),
    ] {
        let error = Checkpoint::open(fixture(name)).unwrap_err();
        assert!(matches!(error, Error::NoWeights { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

fn holds(name: &str, key: Option<&str>) -> Holds {
    let opened = match key {
        Some(key) => Checkpoint::open_at(fixture(name), key),
        None => Checkpoint::open(fixture(name)),
    };
    match opened.unwrap_err() {
        Error::NoStateDict { holds, asked, .. } if asked.as_deref() == key => holds,
        other => panic!("{other}"),
    }
}

#[test]
fn state_dicts_under_other_keys_are_named_and_can_be_chosen() {
    let at = |key: &str, tensors| StateDictAt {
        key: key.to_owned(),
        tensors,
    };
    assert_eq!(
        holds("other-key.pth", None),
        Holds::StateDicts {
            found: vec![at("net", 2)],
            more: 0
        }
    );
    let nested = Holds::StateDicts {
        found: vec![
            at("ema.state_dict", 2),
            at("models.0", 2),
            at("optimizer.state.0", 1),
        ],
        more: 0,
    };
    assert_eq!(holds("nested-key.pth", None), nested);
    assert_eq!(holds("nested-key.pth", Some("ema.weights")), nested);
    let text = nested.to_string();
    assert!(text.contains("`ema.state_dict` (2 tensors)"), "{text}");
    for (name, key) in [
        ("other-key.pth", "net"),
        ("nested-key.pth", "ema.state_dict"),
        ("nested-key.pth", "models.0"),
        ("plain.pth", ""),
        ("model-args.pt", "model"),
    ] {
        let checkpoint = Checkpoint::open_at(fixture(name), key).unwrap();
        assert!(is_whole(&checkpoint), "{name} {key}");
    }
    // The whole of what was saved, where that has tensors, too.
    let checkpoint = Checkpoint::open_at(fixture("other-key.pth"), "").unwrap();
    assert!(checkpoint.find("lr").is_some() && checkpoint.find("a").is_none());
}

#[test]
fn keys_are_for_files_of_pytorchs() {
    let path = fixture("../../../../harness/tests/fixtures/hf-f16/model.safetensors");
    let error = Checkpoint::open_at(path, "model").unwrap_err().to_string();
    assert!(error.contains("no keys to choose from"), "{error}");
}

#[test]
fn modules_saved_whole_are_told_by_their_class() {
    for (name, expected) in [
        ("whole-module.pth", ""),
        ("module-under-a-key.pth", "model"),
    ] {
        let module = Holds::Module {
            key: expected.to_owned(),
            class: "my_training.Model".to_owned(),
        };
        assert_eq!(holds(name, None), module);
        assert!(module.to_string().contains("model.state_dict()"));
    }
    assert!(matches!(
        holds("module-beside.pth", Some("model")),
        Holds::Module { .. }
    ));
    assert_eq!(holds("one-tensor.pth", None), Holds::Tensor);
    let error = Checkpoint::open(fixture("torchscript.pt")).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Foreign {
                kind: Foreign::TorchScript,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn what_a_program_says_of_its_model_can_be_read() {
    let checkpoint = open("model-args.pt");
    let said = |name: &str| checkpoint.metadata().get(name).map(|said| &**said);
    assert_eq!(said("model_args.n_layer"), Some("12"));
    assert_eq!(said("model_args.bias"), Some("false"));
    assert_eq!(said("model_args.dropout"), Some("0.0"));
    assert_eq!(said("model_args.name"), Some("run 1"));
    assert_eq!(said("model_args.vocab_size"), Some("null"));
    assert_eq!(said("iter_num"), Some("2000"));
    // Whatever an argument is, it is there: who does not understand it can say so.
    let odd = open("odd-args.pt");
    for name in [
        "n_head", "act", "norm", "layers", "sizes", "scale", "none", "seen", "huge", "device",
    ] {
        let said = odd.metadata().get(&format!("model_args.{name}"));
        let said = said.unwrap_or_else(|| panic!("{name} is passed over"));
        assert!(said.parse::<f64>().is_err(), "{name}: {said}");
    }
    let checkpoint = open("beside-namespace.pth");
    assert_eq!(checkpoint.metadata()["beside.lr"], "0.001");
    assert_eq!(checkpoint.metadata()["beside.nested.n"], "1");
}

#[test]
fn zips_without_checksums_and_with_a_packed_pickle_are_read() {
    for name in ["without-checksums.pth", "packed-pickle.pth"] {
        assert!(is_whole(&open(name)), "{name}");
    }
}

#[test]
fn packed_tensors_are_refused_by_the_record_that_holds_them() {
    let error = Checkpoint::open(fixture("packed.pth"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("plain/data/0") && error.contains("torch.save"),
        "{error}"
    );
    let checkpoint = open("packed-one.pth");
    assert_eq!(values(&checkpoint, "a", &[2, 3]), A);
    let error = checkpoint.tensor("b", &[4]).unwrap_err().to_string();
    assert!(
        error.contains("`b`") && error.contains("plain/data/1"),
        "{error}"
    );
}

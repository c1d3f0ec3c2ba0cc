//! What is said of a model beside its tensors is computed as it says, or refused by its name: no other model is loaded without
//! a word.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::Place;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A copy of a fixture's file, with a `config.json` beside it that differs in these fields.
fn copy(place: &Place, fixture: &str, file: &str, config: &Value) {
    let from = fixtures().join(fixture);
    std::fs::copy(from.join(file), place.path().join(file)).unwrap();
    place.write("config.json", &config.to_string());
}

/// The `config.json` of a fixture, with these fields changed.
fn config_with(fixture: &str, changes: &Value) -> Value {
    let text = std::fs::read(fixtures().join(fixture).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    for (name, value) in changes.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

fn generate(place: &Place, checkpoint: &str, more: &[&str]) -> (String, String, bool) {
    let args = ["generate", "--checkpoint", checkpoint, "--tokens", "1,2,3"];
    let output = place.run(&[&args[..], more].concat());
    (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
        output.status.success(),
    )
}

#[test]
fn a_configuration_that_contradicts_the_tensors_or_is_not_understood_is_refused_by_its_field() {
    for (changes, expected) in [
        (json!({"n_embd": 32}), "`n_embd` is 32"),
        (json!({"vocab_size": 60}), "`vocab_size` is 60"),
        (json!({"n_positions": 16}), "`n_positions` is 16"),
        (json!({"n_inner": 48}), "`n_inner` is 48"),
        (json!({"n_layer": 1}), "`n_layer` is 1"),
        (json!({"n_layer": 3}), "`transformer.h.2."),
        (json!({"n_head": 5}), "`n_head` is 5"),
        (json!({"n_head": 0}), "`n_head` is 0"),
        (json!({"n_head": "2"}), "`n_head` is \"2\""),
        (json!({"num_attention_heads": 4}), "`num_attention_heads`"),
        (
            json!({"activation_function": "mish"}),
            "`activation_function`",
        ),
        (json!({"layer_norm_epsilon": -1.0}), "`layer_norm_epsilon`"),
        (json!({"scale_attn_weights": 1}), "`scale_attn_weights`"),
        (
            json!({"add_cross_attention": true}),
            "`add_cross_attention`",
        ),
        (json!({"model_type": "llama"}), "`model_type` is \"llama\""),
        (json!({"architectures": ["BertModel"]}), "`architectures`"),
        (
            json!({"sliding_window": 8}),
            "--ignore-config sliding_window",
        ),
        (json!({"text_config": {"n_head": 2}}), "`text_config`"),
        (
            json!({"tie_word_embeddings": false}),
            "`tie_word_embeddings` is false",
        ),
    ] {
        let place = Place::new();
        let config = config_with("hf-tied-safetensors", &changes);
        copy(&place, "hf-tied-safetensors", "model.safetensors", &config);
        let (told, said, went_well) = generate(&place, "model.safetensors", &[]);
        assert!(!went_well && told.is_empty(), "{changes}: {said}");
        let file = match expected.contains("transformer.h.2") {
            true => "model.safetensors",
            false => "config.json",
        };
        assert!(
            said.contains(expected) && said.contains(file),
            "{changes}: {said}\nshould contain {expected}"
        );
    }
}

#[test]
fn a_field_that_is_said_to_be_harmless_is_and_another_is_not() {
    let place = Place::new();
    let config = config_with("hf-tied-safetensors", &json!({"a": 1, "b": 2}));
    copy(&place, "hf-tied-safetensors", "model.safetensors", &config);
    let (_, said, went_well) = generate(&place, "model.safetensors", &["--ignore-config", "a"]);
    assert!(
        !went_well && said.contains("`b` is 2") && !said.contains("`a`"),
        "{said}"
    );
    let both = ["--ignore-config", "a", "--ignore-config", "b"];
    let (_, said, went_well) = generate(&place, "model.safetensors", &both);
    assert!(went_well, "{said}");
}

#[test]
fn a_configuration_that_cannot_be_read_is_refused_with_where_and_why() {
    for (text, expected) in [
        ("{\"n_head\": 2,\n}", "line 2"),
        ("", "config.json"),
        ("[2]", "config.json"),
        ("{\"n_head\": 2", "config.json"),
    ] {
        let place = Place::new();
        copy(
            &place,
            "hf-tied-safetensors",
            "model.safetensors",
            &json!({}),
        );
        place.write("config.json", text);
        let (told, said, went_well) = generate(&place, "model.safetensors", &[]);
        assert!(!went_well && told.is_empty(), "{text}: {said}");
        assert!(
            said.contains("config.json") && said.contains(expected),
            "{text}: {said}"
        );
    }
}

#[test]
fn heads_that_nothing_tells_are_asked_for_and_never_guessed() {
    let place = Place::new();
    let from = fixtures().join("hf-tied-safetensors/model.safetensors");
    std::fs::copy(from, place.path().join("alone.safetensors")).unwrap();
    let (told, said, went_well) = generate(&place, "alone.safetensors", &[]);
    assert!(!went_well && told.is_empty(), "{said}");
    assert!(
        said.contains("how many heads") && said.contains("--size v61-c32-e16-l2-h"),
        "{said}"
    );
    let (_, said, went_well) = generate(
        &place,
        "alone.safetensors",
        &["--size", "v61-c32-e16-l2-h2"],
    );
    assert!(went_well, "{said}");
}

#[test]
#[cfg(unix)]
fn a_configuration_is_found_beside_a_links_target_and_one_folder_up() {
    let expected = {
        let place = Place::new();
        let checkpoint = fixtures().join("hf-tied-safetensors/model.safetensors");
        generate(&place, checkpoint.to_str().unwrap(), &[]).0
    };
    let place = Place::new();
    let config = config_with("hf-tied-safetensors", &json!({}));
    copy(&place, "hf-tied-safetensors", "model.safetensors", &config);
    let target = place.path().join("model.safetensors");
    std::fs::create_dir_all(place.path().join("links")).unwrap();
    std::os::unix::fs::symlink(&target, place.path().join("links/linked.safetensors")).unwrap();
    let (told, said, went_well) = generate(&place, "links/linked.safetensors", &[]);
    assert!(went_well && told == expected, "{said}");
    std::fs::create_dir(place.path().join("checkpoint-5")).unwrap();
    std::fs::rename(&target, place.path().join("checkpoint-5/model.safetensors")).unwrap();
    let (told, said, went_well) = generate(&place, "checkpoint-5", &[]);
    assert!(went_well && told == expected, "{said}");
}

#[test]
fn what_prepare_writes_says_how_many_heads_the_model_has_in_every_format_and_of_every_variant() {
    for (fixture, file) in [
        ("hf-other-forward", "model.safetensors"),
        ("nanogpt-bare", "checkpoint.pt"),
        ("hf-tied-safetensors", "model.safetensors"),
    ] {
        let place = Place::new();
        let checkpoint = fixtures().join(fixture).join(file);
        let checkpoint = checkpoint.to_str().unwrap();
        let (expected, said, went_well) = generate(&place, checkpoint, &[]);
        assert!(went_well, "{fixture}: {said}");
        let formats = [
            "safetensors",
            "pth",
            "per-tensor",
            "sharded",
            "sharded-pth",
            "burnpack",
        ];
        let prepare = |from: &str, format: &str| -> String {
            let args = ["prepare", "--from", from, "--format", format];
            let output = place.run(&args);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{fixture} {from} {format}: {said}");
            let told = String::from_utf8(output.stdout).unwrap();
            let written = told.lines().skip(1).find(|line| !line.starts_with(' '));
            written.unwrap().to_owned()
        };
        for format in formats {
            let written = prepare(checkpoint, format);
            let (told, said, went_well) = generate(&place, &written, &[]);
            assert!(went_well && told == expected, "{fixture} {format}: {said}");
            // And each from each, by the next.
            let next = formats
                .iter()
                .cycle()
                .skip_while(|next| **next != format)
                .nth(1);
            let again = prepare(&written, next.unwrap());
            let (told, said, went_well) = generate(&place, &again, &[]);
            assert!(
                went_well && told == expected,
                "{fixture} {format} {next:?}: {said}"
            );
        }
    }
}

#[test]
fn two_tables_that_should_be_one_and_differ_are_refused() {
    let place = Place::new();
    let tied = json!({"model_type": "gpt2", "n_head": 2, "tie_word_embeddings": true});
    copy(&place, "book-masks", "model.pth", &tied);
    let (_, said, went_well) = generate(&place, "model.pth", &[]);
    assert!(!went_well && said.contains("tie_word_embeddings"), "{said}");
    let ignored = ["--ignore-config", "tie_word_embeddings"];
    let (_, said, went_well) = generate(&place, "model.pth", &ignored);
    assert!(went_well, "{said}");
}

#[test]
fn another_model_at_the_same_path_of_the_same_size_and_time_is_noticed() {
    let place = Place::new();
    let config = config_with("hf-tied-safetensors", &json!({}));
    copy(&place, "hf-tied-safetensors", "model.safetensors", &config);
    let path = place.path().join("model.safetensors");
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    // Per-tensor files are a converted copy.
    let by = ["--experiment", "per-tensor"];
    let (before, said, went_well) = generate(&place, "model.safetensors", &by);
    assert!(went_well, "{said}");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    // Every float's sign.
    bytes[header..]
        .iter_mut()
        .skip(3)
        .step_by(4)
        .for_each(|byte| *byte ^= 0x80);
    std::fs::write(&path, bytes).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(modified).unwrap();
    drop(file);
    let (after, said, went_well) = generate(&place, "model.safetensors", &by);
    assert!(went_well, "{said}");
    let (right, ..) = generate(&place, "model.safetensors", &["--experiment", "streamed"]);
    assert_eq!(after, right);
    assert_ne!(after, before);
}

#[test]
fn a_part_of_a_checkpoint_alone_is_refused_with_its_index() {
    let place = Place::new();
    let part = fixtures().join("hf-sharded-safetensors/model-00001-of-00004.safetensors");
    let (_, said, went_well) = generate(&place, part.to_str().unwrap(), &[]);
    assert!(
        !went_well && said.contains("model.safetensors.index.json"),
        "{said}"
    );
}

#[test]
fn a_users_own_file_is_never_written() {
    // Their own formats, under the book's names, with masks beside the weights.
    for (fixture, file, format) in [
        ("book-masks", "model.pth", "pth"),
        ("book-training", "checkpoint.pt", "pth"),
        ("hf-tied-safetensors", "model.safetensors", "safetensors"),
        (
            "hf-sharded-safetensors",
            "model.safetensors.index.json",
            "sharded",
        ),
    ] {
        let place = Place::new();
        let folder = place.path().join("mine");
        std::fs::create_dir(&folder).unwrap();
        let from = fixtures().join(fixture);
        for entry in std::fs::read_dir(&from).unwrap().flatten() {
            std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        let state = || -> Vec<(PathBuf, Vec<u8>)> {
            let entries = std::fs::read_dir(&folder).unwrap().flatten();
            let mut all: Vec<_> = entries
                .map(|entry| (entry.path(), std::fs::read(entry.path()).unwrap()))
                .collect();
            all.sort();
            all
        };
        let before = state();
        let case = std::fs::read(from.join("case.json")).unwrap();
        let case: Value = serde_json::from_slice(&case).unwrap();
        let size = case["size"].as_str().unwrap();
        let checkpoint = format!("mine/{file}");
        for other in [format, "safetensors", "pth", "sharded"] {
            let args = [
                "prepare",
                "--from",
                &*checkpoint,
                "--size",
                size,
                "--format",
                other,
            ];
            let output = place.run(&args);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{fixture} {other}: {said}");
        }
        let more = ["--size", size, "--experiment", "per-tensor"];
        let (_, said, went_well) = generate(&place, &checkpoint, &more);
        assert!(went_well, "{fixture}: {said}");
        assert!(
            state() == before,
            "{fixture}: the user's folder was changed"
        );
    }
}

#[test]
#[cfg(unix)]
fn a_configuration_that_is_there_and_cannot_be_read_is_never_passed_over_for_another() {
    let place = Place::new();
    let folder = place.path().join("in");
    std::fs::create_dir(&folder).unwrap();
    let from = fixtures().join("hf-tied-safetensors/model.safetensors");
    std::fs::copy(from, folder.join("model.safetensors")).unwrap();
    std::os::unix::fs::symlink("nowhere.json", folder.join("config.json")).unwrap();
    place.write(
        "config.json",
        &config_with("hf-tied-safetensors", &json!({})).to_string(),
    );
    let (told, said, went_well) = generate(&place, "in/model.safetensors", &[]);
    assert!(!went_well && told.is_empty(), "{said}");
    assert!(said.contains("in/config.json: cannot be read"), "{said}");
}

#[test]
fn two_descriptions_of_one_model_must_agree() {
    let place = Place::new();
    let from = fixtures().join("hf-tied-safetensors/model.safetensors");
    let args = [
        "prepare",
        "--from",
        from.to_str().unwrap(),
        "--format",
        "safetensors",
    ];
    let output = place.run(&args);
    let told = String::from_utf8(output.stdout).unwrap();
    // With the configuration in its metadata.
    let written = told
        .lines()
        .find(|line| line.ends_with("model.safetensors"))
        .unwrap();
    std::fs::copy(
        place.path().join(written),
        place.path().join("mine.safetensors"),
    )
    .unwrap();
    let (expected, said, went_well) = generate(&place, "mine.safetensors", &[]);
    assert!(went_well, "{said}");
    for (changes, is_right) in [(json!({}), true), (json!({"n_head": 4}), false)] {
        let config = config_with("hf-tied-safetensors", &changes);
        place.write("config.json", &config.to_string());
        let (told, said, went_well) = generate(&place, "mine.safetensors", &[]);
        match is_right {
            true => assert!(went_well && told == expected, "{said}"),
            false => assert!(
                !went_well && said.contains("`n_head` is 2") && said.contains("`n_head` is 4"),
                "{said}"
            ),
        }
    }
}

#[test]
fn a_field_that_nobody_has_cannot_be_ignored() {
    let place = Place::new();
    let config = config_with("hf-tied-safetensors", &json!({}));
    copy(&place, "hf-tied-safetensors", "model.safetensors", &config);
    let (_, said, went_well) =
        generate(&place, "model.safetensors", &["--ignore-config", "n_haed"]);
    assert!(
        !went_well && said.contains("--ignore-config n_haed"),
        "{said}"
    );
}

#[test]
fn of_a_folder_what_transformers_would_open_is_opened() {
    let expected = {
        let place = Place::new();
        let checkpoint = fixtures().join("hf-tied-safetensors/model.safetensors");
        generate(&place, checkpoint.to_str().unwrap(), &[]).0
    };
    let place = Place::new();
    // Shards that were left behind.
    for entry in std::fs::read_dir(fixtures().join("hf-sharded-safetensors"))
        .unwrap()
        .flatten()
    {
        std::fs::copy(entry.path(), place.path().join(entry.file_name())).unwrap();
    }
    let config = config_with("hf-tied-safetensors", &json!({}));
    copy(&place, "hf-tied-safetensors", "model.safetensors", &config);
    let (told, said, went_well) = generate(&place, ".", &[]);
    assert!(went_well && told == expected, "{said}");
}

#[test]
fn a_mask_that_hides_something_else_is_refused_by_its_name() {
    let place = Place::new();
    let from = fixtures().join("book-masks/model.pth");
    let opened = checkpoint::Checkpoint::open(&from).unwrap();
    let mask = opened.find("trf_blocks.1.att.mask").unwrap();
    let mut bytes = std::fs::read(&from).unwrap();
    // The last element of the first row: the first token is not to see the last.
    let at = mask.offset as usize + 4 * (mask.shape[1] - 1);
    assert_eq!(bytes[at..at + 4], 1f32.to_le_bytes());
    bytes[at..at + 4].fill(0);
    std::fs::write(place.path().join("model.pth"), bytes).unwrap();
    let size = ["--size", "v61-c32-e16-l2-h2"];
    let (told, said, went_well) = generate(&place, "model.pth", &size);
    assert!(!went_well && told.is_empty(), "{said}");
    assert!(
        said.contains("`trf_blocks.1.att.mask` [32, 32] is no causal mask"),
        "{said}"
    );
    let lax = [&size[..], &["--strict=false"]].concat();
    let (_, said, went_well) = generate(&place, "model.pth", &lax);
    assert!(!went_well && said.contains("is no causal mask"), "{said}");
}

/// A copy of a fixture's safetensors file with tensors changed, or added: names, dtypes, shapes and bytes.
fn write_changed(place: &Place, fixture: &str, changes: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)>) {
    let bytes = std::fs::read(fixtures().join(fixture).join("model.safetensors")).unwrap();
    let original = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: BTreeMap<String, TensorView<'_>> = original.tensors().into_iter().collect();
    for (name, dtype, shape, bytes) in &changes {
        let changed = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
        tensors.insert((*name).to_owned(), changed);
    }
    let written = safetensors::serialize(tensors, None).unwrap();
    let folder = place.path();
    std::fs::write(folder.join("model.safetensors"), written).unwrap();
    let config = fixtures().join(fixture).join("config.json");
    std::fs::copy(config, folder.join("config.json")).unwrap();
}

/// So many zeros of eight bytes.
fn doubles(count: usize) -> Vec<u8> {
    vec![0; 8 * count]
}

#[test]
fn what_is_there_and_cannot_be_read_is_not_taken_for_absent() {
    // A head beside a configuration that says nothing of one, biases, and tensors that nobody knows.
    for (name, shape) in [
        ("lm_head.weight", vec![61, 16]),
        ("transformer.h.1.attn.c_attn.bias", vec![48]),
        ("lm_head.bias", vec![61]),
        ("lm_head_bias", vec![61]),
        ("transformer.h.0.attn.c_attn.lora_A", vec![16, 2]),
        ("transformer.h.0.adapter.down_proj.weight", vec![16, 2]),
    ] {
        let place = Place::new();
        let elements = shape.iter().product();
        let change = (name, Dtype::F64, shape, doubles(elements));
        write_changed(&place, "hf-tied-safetensors", vec![change]);
        let (told, said, went_well) = generate(&place, "model.safetensors", &[]);
        assert!(!went_well && told.is_empty(), "{name}: {said}");
        assert!(
            said.contains(&format!("`{name}`")) && said.contains("is F64"),
            "{name}: {said}"
        );
    }
    // What is known to change nothing is passed over, and more where that is asked for.
    for (name, more) in [("step", None), ("logit_scale", Some("--strict=false"))] {
        let place = Place::new();
        let stranger = (name, Dtype::I64, vec![], doubles(1));
        write_changed(&place, "hf-tied-safetensors", vec![stranger]);
        let (_, said, went_well) = generate(&place, "model.safetensors", &[]);
        assert_eq!(went_well, more.is_none(), "{name}: {said}");
        let options: Vec<&str> = more.into_iter().collect();
        let (_, said, went_well) = generate(&place, "model.safetensors", &options);
        assert!(went_well, "{name}: {said}");
    }
    // Every bias of the model.
    let place = Place::new();
    let biases = [
        "attn.c_attn",
        "attn.c_proj",
        "mlp.c_fc",
        "mlp.c_proj",
        "ln_1",
        "ln_2",
    ];
    let widths = [48, 16, 64, 16, 16, 16];
    let names: Vec<(String, usize)> = (0..2)
        .flat_map(|layer| {
            let names = biases.map(|name| format!("transformer.h.{layer}.{name}.bias"));
            names.into_iter().zip(widths)
        })
        .chain([("transformer.ln_f.bias".to_owned(), 16)])
        .collect();
    let changes = names
        .iter()
        .map(|(name, width)| (&**name, Dtype::F64, vec![*width], doubles(*width)));
    write_changed(&place, "hf-tied-safetensors", changes.collect());
    let (told, said, went_well) = generate(&place, "model.safetensors", &[]);
    assert!(!went_well && told.is_empty(), "{said}");
    assert!(
        said.contains("ln_1.bias") && said.contains("is F64"),
        "{said}"
    );
}

#[test]
fn a_mask_of_any_type_is_looked_at() {
    const CONTEXT: usize = 32;
    let causal = |width: usize, at: usize| {
        let is_seen = at % CONTEXT <= at / CONTEXT;
        let mut element = vec![0; width];
        element[width - 1] = u8::from(is_seen);
        element
    };
    for (dtype, width) in [
        (Dtype::BOOL, 1),
        (Dtype::U8, 1),
        (Dtype::I64, 8),
        (Dtype::F64, 8),
    ] {
        let mask: Vec<u8> = (0..CONTEXT * CONTEXT)
            .flat_map(|at| causal(width, at))
            .collect();
        let mut windowed = mask.clone();
        // The last token is not to see the first.
        let last_row = (CONTEXT - 1) * CONTEXT * width;
        windowed[last_row..last_row + width].fill(0);
        for (mask, is_fine) in [(mask, true), (windowed, false)] {
            let place = Place::new();
            let name = "transformer.h.1.attn.bias";
            let change = (name, dtype, vec![1, 1, CONTEXT, CONTEXT], mask);
            write_changed(&place, "hf-tied-safetensors", vec![change]);
            let (told, said, went_well) = generate(&place, "model.safetensors", &[]);
            assert_eq!((went_well, told.is_empty()), (is_fine, !is_fine), "{said}");
            assert!(is_fine || said.contains("is no causal mask"), "{said}");
        }
    }
}

#[test]
fn a_mask_in_burns_own_format_is_not_taken_for_gpt2s() {
    let place = Place::new();
    let fixture = fixtures().join("hf-tied-safetensors/model.safetensors");
    let source = checkpoint::Checkpoint::open(fixture).unwrap();
    let own = source.tensors().iter();
    let own = own.map(|tensor| checkpoint::TensorMeta {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
    });
    let mut metas: Vec<_> = own.collect();
    metas.push(checkpoint::TensorMeta {
        name: "transformer.h.1.attn.bias".to_owned(),
        dtype: checkpoint::Dtype::I64,
        shape: vec![1, 1],
    });
    checkpoint::write(
        &place.path().join("model.bpk"),
        checkpoint::Format::Burnpack,
        &metas,
        &mut |meta, sink| match source.find(&meta.name) {
            Some(tensor) => tensor.read_in_pieces(1 << 20, sink),
            None => sink(&1u64.to_le_bytes()),
        },
    )
    .unwrap();
    let config = config_with("hf-tied-safetensors", &json!({}));
    place.write("config.json", &config.to_string());
    let (told, said, went_well) = generate(&place, "model.bpk", &[]);
    assert!(!went_well && told.is_empty(), "{said}");
    assert!(
        said.contains("its `transformer.h.1.attn.bias` is I64"),
        "{said}"
    );
}

#[test]
fn a_size_does_not_stand_in_for_a_configuration_that_is_refused() {
    let place = Place::new();
    let config = config_with("hf-tied-safetensors", &json!({"my_note": 1}));
    copy(&place, "hf-tied-safetensors", "model.safetensors", &config);
    let size = ["--size", "v61-c32-e16-l2-h4"];
    let (told, said, went_well) = generate(&place, "model.safetensors", &size);
    assert!(!went_well && told.is_empty(), "{said}");
    assert!(said.contains("--ignore-config my_note"), "{said}");
    let (_, said, went_well) = generate(
        &place,
        "model.safetensors",
        &[&size[..], &["--ignore-config", "my_note"]].concat(),
    );
    assert!(!went_well && said.contains("-h2"), "{said}");
    let (_, said, went_well) = generate(
        &place,
        "model.safetensors",
        &[
            "--size",
            "v61-c32-e16-l2-h2",
            "--ignore-config",
            "config.json",
        ],
    );
    assert!(went_well, "{said}");
}

#[test]
fn nanogpts_weights_beside_a_configuration_that_names_no_activation_are_asked_for_it() {
    let place = Place::new();
    let config = json!({"model_type": "gpt2", "n_head": 4});
    copy(&place, "nanogpt-bare", "checkpoint.pt", &config);
    let without = ["--ignore-config", "model_args"];
    let (told, said, went_well) = generate(&place, "checkpoint.pt", &without);
    assert!(!went_well && told.is_empty(), "{said}");
    assert!(
        said.contains("does not say `activation_function`"),
        "{said}"
    );
    place.write(
        "config.json",
        &json!({"model_type": "gpt2", "n_head": 4, "activation_function": "gelu"}).to_string(),
    );
    let (_, said, went_well) = generate(&place, "checkpoint.pt", &without);
    assert!(went_well, "{said}");
}

#[test]
fn an_adapter_beside_a_model_is_never_left_out_without_a_word() {
    let place = Place::new();
    let config = config_with("hf-tied-safetensors", &json!({}));
    copy(&place, "hf-tied-safetensors", "model.safetensors", &config);
    place.write("adapter_config.json", "{}");
    for checkpoint in [".", "model.safetensors"] {
        let (told, said, went_well) = generate(&place, checkpoint, &[]);
        assert!(!went_well && told.is_empty(), "{checkpoint}: {said}");
        for expected in ["adapter_config.json", "merge_and_unload"] {
            assert!(said.contains(expected), "{checkpoint}: {said}");
        }
    }
    std::fs::remove_file(place.path().join("adapter_config.json")).unwrap();
    let (_, said, went_well) = generate(&place, ".", &[]);
    assert!(went_well, "{said}");
}

/// The tied fixture with these tensors of two floats in it as well, and its configuration beside it.
fn with_more(place: &Place, names: &[String]) {
    let fixture = fixtures().join("hf-tied-safetensors/model.safetensors");
    let source = checkpoint::Checkpoint::open(fixture).unwrap();
    let meta = |name: &str, dtype, shape: &[usize]| checkpoint::TensorMeta {
        name: name.to_owned(),
        dtype,
        shape: shape.to_owned(),
    };
    let own = source.tensors().iter();
    let own = own.map(|tensor| meta(&tensor.name, tensor.dtype, &tensor.shape));
    let more = names
        .iter()
        .map(|name| meta(name, checkpoint::Dtype::F32, &[2]));
    let metas: Vec<_> = own.chain(more).collect();
    checkpoint::write(
        &place.path().join("model.safetensors"),
        checkpoint::Format::Safetensors,
        &metas,
        &mut |meta, sink| match source.find(&meta.name) {
            Some(tensor) => tensor.read_in_pieces(1 << 20, sink),
            None => sink(&[0; 8]),
        },
    )
    .unwrap();
    let config = config_with("hf-tied-safetensors", &json!({}));
    place.write("config.json", &config.to_string());
}

#[test]
fn what_the_model_computes_with_is_refused_though_the_unexpected_may_pass() {
    for (name, expected) in [
        ("ema.transformer.wte.weight", "of a second model"),
        ("ema.transformer.wte.weight", "`ema.transformer.`"),
        ("module.h.1.ln_1.bias", "of a second model"),
        (
            "transformer.h.0.attn.c_attn.lora_A.default.weight",
            "of an adapter",
        ),
        ("lm_head.bias", "a part of `lm_head`"),
        ("lm_head.0.weight", "a part of `lm_head`"),
    ] {
        let place = Place::new();
        with_more(&place, &[name.to_owned()]);
        for strict in ["--strict=true", "--strict=false"] {
            let (told, said, went_well) = generate(&place, "model.safetensors", &[strict]);
            assert!(!went_well && told.is_empty(), "{name} {strict}: {said}");
            assert!(
                said.contains(&format!("`{name}` [2]")) && said.contains(expected),
                "{name} {strict}: {said}"
            );
            assert!(!said.contains("--strict=false"), "{name}: {said}");
        }
    }
    let place = Place::new();
    with_more(&place, &["score.weight".to_owned()]);
    let (_, said, went_well) = generate(&place, "model.safetensors", &[]);
    let advice = "if nothing that the model computes depends on them: --strict=false";
    assert!(!went_well && said.contains(advice), "{said}");
    let (_, said, went_well) = generate(&place, "model.safetensors", &["--strict=false"]);
    assert!(went_well, "{said}");
}

#[test]
fn names_by_the_thousand_are_refused_at_once() {
    let junk = |name: &dyn Fn(usize) -> String| (0..3000).map(name).collect::<Vec<_>>();
    let mut layer = junk(&|at| format!("transformer.h.{at}.attn.c_attn.weighs"));
    layer.push("transformer.h.3000.ln_1.weight".to_owned());
    for names in [layer, junk(&|at| format!("p{at}.wte.weight"))] {
        let place = Place::new();
        with_more(&place, &names);
        let (told, said, went_well) = generate(&place, "model.safetensors", &[]);
        assert!(!went_well && told.is_empty(), "{said}");
        assert!(
            said.contains("and 2988 more") || said.contains("and 2989 more"),
            "{said}"
        );
    }
}

#[test]
fn a_model_that_is_too_small_to_be_compared_is_used_and_not_measured() {
    for (size, tokens) in [("v4-c2-e4-l1-h1", "1,2"), ("v3-c4-e4-l1-h1", "1,2")] {
        let place = Place::new();
        let args = ["prepare", "--size", size, "--format", "safetensors"];
        let output = place.run(&args);
        let written = String::from_utf8(output.stdout).unwrap();
        let written = written.trim();
        let args = [
            "generate",
            "--checkpoint",
            written,
            "--size",
            size,
            "--tokens",
            tokens,
        ];
        let output = place.run(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{size}: {said}");
        place.manifest("repeats = 1");
        for more in [["--checkpoint", written], ["--size", size]] {
            let (said, code) = place.run_manifest(&more);
            assert_eq!(code, 1, "{said}");
            assert!(
                said.contains("[1, 2, 3], which needs a context of 3 and a vocabulary of 4"),
                "{said}"
            );
            assert!(!place.path().join("out").exists());
        }
    }
}

#[test]
fn a_checkpoint_that_was_quantised_here_is_told_with_who_reads_it() {
    let place = Place::new();
    let size = "v61-c32-e16-l2-h2";
    let args = ["prepare", "--size", size, "--format", "int8"];
    let output = place.run(&args);
    let written = String::from_utf8(output.stdout).unwrap();
    let more = ["--size", size];
    let (told, said, went_well) = generate(&place, written.trim(), &more);
    assert!(!went_well && told.is_empty(), "{said}");
    assert!(
        said.contains("quantised") && said.contains("--experiment prequantized"),
        "{said}"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_path_that_is_no_text_is_refused_with_the_path() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let folder = std::ffi::OsStr::from_bytes(b"mine\xff");
    let folder = place.path().join(folder);
    std::fs::create_dir(&folder).unwrap();
    for file in ["model.safetensors", "config.json"] {
        let from = fixtures().join("hf-tied-safetensors").join(file);
        std::fs::copy(from, folder.join(file)).unwrap();
    }
    let mut command = place.command(&["generate", "--tokens", "1,2,3", "--checkpoint"]);
    let output = command.arg(&folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("mine\u{fffd}") && said.contains("UTF-8"),
        "{said}"
    );
}

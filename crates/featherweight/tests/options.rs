//! Names, parts, dtypes: what a load can be told, and what it refuses.

mod common;

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, Linear, LinearConfig, LinearLayout,
};
use burn::tensor::backend::Backend;
use burn::tensor::quantization::{
    QuantLevel, QuantMode, QuantParam, QuantScheme, QuantStore, QuantValue,
};
use burn::tensor::{DType, Tensor};
use burn_flex::{Flex, FlexDevice};
use burn_store::{ModuleSnapshot, SafetensorsStore};
use checkpoint::{Dtype, Format};
use common::{Stored, f32s, floats, turned, values, write};
use featherweight::{Checkpoint, open, save};

fn pth(tensors: &[(&str, Stored)]) -> (tempfile::TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let tensors: BTreeMap<String, Stored> = tensors
        .iter()
        .map(|(name, stored)| ((*name).to_owned(), stored.clone()))
        .collect();
    let path = write(&folder.path().join("m.pth"), Format::Pth, &tensors);
    let checkpoint = open(&path).unwrap();
    (folder, checkpoint)
}

#[derive(Module, Debug)]
struct Stack<B: Backend> {
    layers: Vec<Linear<B>>,
}

fn linear(inputs: usize, outputs: usize) -> Linear<Flex> {
    LinearConfig::new(inputs, outputs)
        .with_bias(false)
        .init(&FlexDevice)
}

#[test]
fn names_are_rewritten_and_numbers_counted_anew() {
    let (_folder, checkpoint) = pth(&[
        ("model.fc.0.weight", f32s("a", &[4, 8])),
        ("model.fc.2.weight", f32s("b", &[8, 4])),
    ]);
    let stack = || Stack {
        layers: vec![linear(8, 4), linear(4, 8)],
    };
    let load = checkpoint
        .load()
        .with_key_remapping(r"^model\.fc\.", "layers.");
    let said = load.clone().into(stack()).unwrap_err().to_string();
    assert!(
        said.contains("`layers.1.weight`") && said.contains("`model.fc.2.weight`"),
        "{said}"
    );
    let (stack, _) = load.map_indices_contiguous(true).into(stack()).unwrap();
    assert_eq!(
        values(stack.layers[0].weight.val()),
        turned(&floats("a", 32), [4, 8])
    );
    assert_eq!(
        values(stack.layers[1].weight.val()),
        turned(&floats("b", 32), [8, 4])
    );
}

#[test]
fn a_bad_pattern_is_named_before_anything_is_loaded() {
    let (_folder, checkpoint) = pth(&[("weight", f32s("weight", &[4, 8]))]);
    let load = checkpoint.load().with_key_remapping("(", "x");
    let said = load.into(linear(8, 4)).unwrap_err().to_string();
    assert!(said.contains("`(` is no regular expression"), "{said}");
}

#[test]
fn what_is_in_the_file_alone_is_refused_unless_it_is_allowed() {
    let (_folder, checkpoint) = pth(&[
        ("weight", f32s("weight", &[4, 8])),
        ("bias", f32s("bias", &[4])),
    ]);
    let said = checkpoint
        .load()
        .into(linear(8, 4))
        .unwrap_err()
        .to_string();
    assert!(said.contains("no parameter for tensor `bias`"), "{said}");
    let (_, report) = checkpoint
        .load()
        .allow_unused(true)
        .into(linear(8, 4))
        .unwrap();
    assert_eq!(report.unused, ["bias"]);
}

#[test]
fn a_linear_layer_of_column_major_layout_is_right_lazy_and_initialised_and_square() {
    for [inputs, outputs] in [[8, 4], [8, 8]] {
        let (_folder, checkpoint) = pth(&[("weight", f32s("weight", &[outputs, inputs]))]);
        let expected = turned(&floats("weight", inputs * outputs), [outputs, inputs]);
        for is_lazy in [true, false] {
            let config = LinearConfig::new(inputs, outputs).with_bias(false);
            let config = config.with_layout(LinearLayout::Col);
            let layer: Linear<Flex> = config.init(&FlexDevice);
            if !is_lazy {
                drop(layer.weight.val());
            }
            let (layer, report) = checkpoint.load().verified().into(layer).unwrap();
            assert_eq!(layer.weight.dims(), [inputs, outputs], "{report}");
            assert_eq!(values(layer.weight.val()), expected, "{is_lazy}");
            // And again into what is loaded.
            let (layer, _) = checkpoint.load().verified().into(layer).unwrap();
            assert_eq!(values(layer.weight.val()), expected, "{is_lazy}");
            let x = Tensor::<Flex, 2>::ones([1, inputs], &FlexDevice);
            assert_eq!(layer.forward(x).dims(), [1, outputs]);
        }
    }
}

#[test]
fn layers_of_both_layouts_are_saved_as_burn_store_saves_them_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    for [inputs, outputs] in [[8, 4], [8, 8]] {
        let config = LinearConfig::new(inputs, outputs).with_bias(false);
        let config = config.with_layout(LinearLayout::Col);
        let layer: Linear<Flex> = config.init(&FlexDevice);
        let expected = values(layer.weight.val());
        let name = |what: &str| folder.path().join(format!("{what}-{outputs}.safetensors"));
        save(&layer).to(name("ours")).unwrap();
        layer
            .save_into(&mut SafetensorsStore::from_file(name("theirs")))
            .unwrap();
        for path in [name("ours"), name("theirs")] {
            let load = open(&path).unwrap().load();
            let load = match inputs == outputs {
                false => load,
                // A square does not say which of the two layouts was saved: the caller does.
                true => {
                    let again: Linear<Flex> = config.init(&FlexDevice);
                    let said = load.clone().into(again).unwrap_err().to_string();
                    assert!(
                        said.contains("`weight`") && said.contains("[8, 8]"),
                        "{said}"
                    );
                    load.with_from_adapter(featherweight::IdentityAdapter)
                }
            };
            let again: Linear<Flex> = config.init(&FlexDevice);
            let (again, _) = load.into(again).unwrap();
            assert_eq!(values(again.weight.val()), expected, "{path:?}");
        }
        let mut again: Linear<Flex> = config.init(&FlexDevice);
        again
            .load_from(&mut SafetensorsStore::from_file(name("ours")))
            .unwrap();
        assert_eq!(values(again.weight.val()), expected);
        let for_pytorch = save(&layer).to(folder.path().join(format!("{outputs}.pth")));
        let saved = open(for_pytorch.unwrap().file).unwrap();
        assert_eq!(
            saved.index().find("weight").unwrap().shape,
            [outputs, inputs]
        );
        let row: Linear<Flex> = linear(inputs, outputs);
        let (row, _) = saved.load().into(row).unwrap();
        assert_eq!(values(row.weight.val()), expected);
    }
}

#[test]
fn a_parameters_own_functions_are_gone_through_both_ways() {
    #[derive(Module, Debug)]
    struct Doubled<B: Backend> {
        own: Param<Tensor<B, 1>>,
    }
    let module = |values: [f32; 3]| Doubled::<Flex> {
        own: Param::from_data(values, &FlexDevice)
            .load_mapper(|tensor| tensor * 2.0)
            .save_mapper(|tensor| tensor / 2.0),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.bpk");
    save(&module([1.0, 2.0, 3.0])).to(&path).unwrap();
    let load = open(&path).unwrap().load().verified();
    let (again, _) = load.into(module([0.0; 3])).unwrap();
    assert_eq!(values(again.own.val()), [1.0, 2.0, 3.0]);
}

#[test]
fn weights_that_are_the_other_way_round_than_their_file_says_are_refused() {
    // Exchanged by a wrong renaming: each would fit, were it turned.
    let (_folder, checkpoint) = pth(&[
        ("layers.0.weight", f32s("a", &[8, 4])),
        ("layers.1.weight", f32s("b", &[4, 8])),
    ]);
    let stack = Stack {
        layers: vec![linear(8, 4), linear(4, 8)],
    };
    let said = checkpoint.load().into(stack).unwrap_err().to_string();
    assert!(
        said.contains("`layers.0.weight` has shape [8, 4]"),
        "{said}"
    );
}

#[test]
fn a_tie_holds_whatever_is_filtered_and_a_table_is_no_linear_weight() {
    #[derive(Module, Debug)]
    struct Tied<B: Backend> {
        table: Embedding<B>,
        head: Linear<B>,
        other: Param<Tensor<B, 2>>,
    }
    let tied = || {
        let table: Embedding<Flex> = EmbeddingConfig::new(8, 8).init(&FlexDevice);
        Tied {
            head: Linear {
                weight: table.weight.clone(),
                bias: None,
            },
            other: table.weight.clone(),
            table,
        }
    };
    let (_folder, checkpoint) = pth(&[("table.weight", f32s("table", &[8, 8]))]);
    let said = checkpoint.load().into(tied()).unwrap_err().to_string();
    assert!(said.contains("no tensor for `head.weight`"), "{said}");
    let load = checkpoint.load().with_regex("^table");
    let (module, report) = load.into(tied()).unwrap();
    assert_eq!(values(module.other.val()), floats("table", 64));
    assert_eq!(report.loaded.len(), 2, "{report}");
}

#[test]
fn clones_of_one_batch_norm_are_refused_where_the_file_has_several_states() {
    #[derive(Module, Debug)]
    struct Norms<B: Backend> {
        norms: Vec<BatchNorm<B>>,
    }
    let mut tensors = Vec::new();
    for layer in 0..2 {
        for name in ["weight", "bias", "running_mean", "running_var"] {
            let name = format!("norms.{layer}.{name}");
            tensors.push((name.clone(), f32s(&name, &[4])));
        }
    }
    let tensors: Vec<(&str, Stored)> = tensors
        .iter()
        .map(|(name, stored)| (&**name, stored.clone()))
        .collect();
    let (_folder, checkpoint) = pth(&tensors);
    let norm = || BatchNormConfig::new(4).init::<Flex>(&FlexDevice);
    let one = norm();
    let clones = Norms {
        norms: vec![one.clone(), one],
    };
    let said = checkpoint.load().into(clones).unwrap_err().to_string();
    assert!(said.contains("share one running state"), "{said}");
    let apart = Norms {
        norms: vec![norm(), norm()],
    };
    let (apart, _) = checkpoint.load().verified().into(apart).unwrap();
    let mean = apart.norms[0].running_mean.value();
    assert_eq!(values(mean), floats("norms.0.running_mean", 4));
}

#[test]
fn what_stands_before_all_names_is_told_once() {
    let (_folder, checkpoint) = pth(&[
        ("_orig_mod.layers.0.weight", f32s("a", &[4, 8])),
        ("_orig_mod.layers.1.weight", f32s("b", &[8, 4])),
    ]);
    let stack = || Stack {
        layers: vec![linear(8, 4), linear(4, 8)],
    };
    let said = checkpoint.load().into(stack()).unwrap_err().to_string();
    assert!(
        said.contains("2 tensors are there under names that begin with `_orig_mod.`"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 3, "{said}");
    let load = checkpoint.load().with_key_remapping(r"^_orig_mod\.", "");
    assert!(load.into(stack()).is_ok());
}

#[test]
fn a_part_of_another_model_is_none_of_a_prefix() {
    let (_folder, checkpoint) = pth(&[
        ("layers.0.weight", f32s("a", &[4, 8])),
        ("old.layers.1.weight", f32s("b", &[8, 4])),
    ]);
    let stack = Stack {
        layers: vec![linear(8, 4), linear(4, 8)],
    };
    let load = checkpoint.load().allow_partial(true).allow_unused(true);
    let (_, report) = load.into(stack).unwrap();
    assert_eq!(report.kept, ["layers.1.weight"]);
}

#[test]
fn a_file_of_another_framework_is_refused_unless_somebody_says_whose_layout_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let layer = linear(8, 8);
    let meta = checkpoint::TensorMeta {
        name: "weight".to_owned(),
        dtype: Dtype::F32,
        shape: vec![8, 8],
    };
    let said = BTreeMap::from([("format".to_owned(), "mlx".to_owned())]);
    let bytes: Vec<u8> = values(layer.weight.val())
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect();
    checkpoint::write_with_metadata(
        &path,
        Format::Safetensors,
        &[meta],
        &said,
        &mut |_, sink| sink(&bytes),
    )
    .unwrap();
    let checkpoint = open(&path).unwrap();
    let said = checkpoint
        .load()
        .into(linear(8, 8))
        .unwrap_err()
        .to_string();
    assert!(said.contains("it is of `mlx`"), "{said}");
    let load = checkpoint
        .load()
        .with_from_adapter(featherweight::IdentityAdapter);
    let (again, _) = load.into(linear(8, 8)).unwrap();
    assert_eq!(values(again.weight.val()), values(layer.weight.val()));
}

#[test]
fn a_file_that_has_changed_since_it_was_opened_is_refused() {
    let (folder, checkpoint) = pth(&[("weight", f32s("weight", &[4, 8]))]);
    let path = folder.path().join("m.pth");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let said = checkpoint
        .load()
        .into(linear(8, 4))
        .unwrap_err()
        .to_string();
    assert!(said.contains("has changed since it was opened"), "{said}");
}

/// Writes zeros over a file's end when the load is at this phase, as an editor of another program would.
struct Meddler(std::path::PathBuf, featherweight::Phase);

impl featherweight::Observe for Meddler {
    fn enter(&self, phase: featherweight::Phase) {
        if phase == self.1 {
            let mut bytes = std::fs::read(&self.0).unwrap();
            let end = bytes.len() - 16;
            bytes[end..].fill(0);
            std::fs::write(&self.0, bytes).unwrap();
        }
    }
}

#[test]
fn a_file_that_changes_while_it_is_loaded_is_an_error_and_so_is_another_of_its_name_and_age() {
    use featherweight::Phase;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let layer = linear(8, 4);
    for (phase, is_verified) in [(Phase::Materialise, false), (Phase::Read, true)] {
        save(&layer).overwrite(true).to(&path).unwrap();
        let load = open(&path).unwrap().load();
        let load = load.observed(std::sync::Arc::new(Meddler(path.clone(), phase)));
        let load = if is_verified { load.verified() } else { load };
        let said = load.into(linear(8, 4)).unwrap_err().to_string();
        assert!(said.contains("has changed since it was opened"), "{said}");
    }
    // Another file, renamed over it: as long, and as old.
    save(&layer).overwrite(true).to(&path).unwrap();
    let checkpoint = open(&path).unwrap();
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    let other = folder.path().join("other.safetensors");
    save(&linear(8, 4)).to(&other).unwrap();
    let file = std::fs::File::options().write(true).open(&other).unwrap();
    file.set_modified(written).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let said = checkpoint
        .load()
        .into(linear(8, 4))
        .unwrap_err()
        .to_string();
    assert!(said.contains("has changed since it was opened"), "{said}");
}

#[test]
fn what_cannot_be_read_has_its_number_and_is_told_as_unused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    // The second of three layers is of a dtype that is not read.
    let header = r#"{"layers.0.weight":{"dtype":"F32","shape":[4,8],"data_offsets":[0,128]},"layers.1.weight":{"dtype":"F8_E4M3","shape":[4,8],"data_offsets":[128,160]},"layers.2.weight":{"dtype":"F32","shape":[4,8],"data_offsets":[160,288]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + 288, 0);
    std::fs::write(&path, bytes).unwrap();
    let load = || {
        let load = open(&path).unwrap().load().allow_unused(true);
        load.with_from_adapter(featherweight::PyTorchToBurnAdapter)
    };
    let layers = |count: usize| Stack {
        layers: (0..count).map(|_| linear(8, 4)).collect(),
    };
    let counted = load().map_indices_contiguous(true);
    let said = counted.into(layers(2)).unwrap_err().to_string();
    assert!(
        said.contains("`layers.1.weight`") && said.contains("F8_E4M3"),
        "{said}"
    );
    let (_, report) = load().into(layers(1)).unwrap();
    assert_eq!(
        report.unused,
        ["layers.2.weight", "layers.1.weight"],
        "{report}"
    );
}

#[test]
fn a_filter_is_told_what_a_parameter_is_in_as_burn_store_tells_it() {
    let (_folder, checkpoint) = pth(&[
        ("norm.weight", f32s("n", &[4])),
        ("norm.bias", f32s("m", &[4])),
        ("linear.weight", f32s("w", &[4, 8])),
    ]);
    #[derive(Module, Debug)]
    struct Both<B: Backend> {
        norm: burn::nn::LayerNorm<B>,
        linear: Linear<B>,
    }
    for wants_linear in [true, false] {
        let both: Both<Flex> = Both {
            norm: burn::nn::LayerNormConfig::new(4).init(&FlexDevice),
            linear: linear(8, 4),
        };
        let predicate = match wants_linear {
            true => |_: &str, containers: &str| containers.contains("Struct:Linear"),
            false => |_: &str, containers: &str| !containers.contains("Struct:Linear"),
        };
        let filter = featherweight::PathFilter::new().with_predicate(predicate);
        let (_, report) = checkpoint.load().filter(filter).into(both).unwrap();
        let paths: Vec<&str> = report.loaded.iter().map(|one| &*one.path).collect();
        match wants_linear {
            true => assert_eq!(paths, ["linear.weight"]),
            false => assert_eq!(paths, ["norm.gamma", "norm.beta"]),
        }
    }
}

#[test]
fn a_file_with_several_state_dicts_says_how_to_choose_one() {
    let (_folder, checkpoint) = pth(&[("weight", f32s("weight", &[4, 8]))]);
    let said = featherweight::open_at(checkpoint.index().path(), "ema");
    let said = said.unwrap_err().to_string();
    assert!(!said.contains("--key"), "{said}");
}

#[test]
fn dtypes_stay_as_they_are_stored_and_are_cast_by_choice_and_never_beyond_their_range() {
    let halves: Vec<u8> = (0..32u16)
        .flat_map(|at| (0x3c00 + at).to_le_bytes())
        .collect();
    let (_folder, checkpoint) = pth(&[("weight", (Dtype::F16, vec![4, 8], halves))]);
    let (layer, _) = checkpoint.load().into(linear(8, 4)).unwrap();
    assert_eq!(layer.weight.val().dtype(), DType::F16);
    let (layer, report) = checkpoint
        .load()
        .cast(DType::F32)
        .into(linear(8, 4))
        .unwrap();
    assert_eq!(layer.weight.val().dtype(), DType::F32);
    assert!(report.to_string().contains("f16 → f32"), "{report}");
    let large: Vec<u8> = (0..32).flat_map(|_| 1e30f32.to_le_bytes()).collect();
    let (_folder, checkpoint) = pth(&[("weight", (Dtype::F32, vec![4, 8], large))]);
    let said = checkpoint
        .load()
        .cast(DType::F16)
        .into(linear(8, 4))
        .unwrap_err();
    let said = said.to_string();
    assert!(said.contains("`weight`") && said.contains("f16"), "{said}");
    let said = checkpoint
        .load()
        .cast(DType::I32)
        .into(linear(8, 4))
        .unwrap_err();
    assert!(said.to_string().contains("cannot be cast to i32"), "{said}");
}

#[test]
fn doubles_are_loaded_as_such_and_cast_by_choice() {
    let doubles: Vec<u8> = (0..32).flat_map(|at| f64::from(at).to_le_bytes()).collect();
    let (_folder, checkpoint) = pth(&[("weight", (Dtype::F64, vec![4, 8], doubles))]);
    let (layer, _) = checkpoint
        .load()
        .cast(DType::F32)
        .verified()
        .into(linear(8, 4))
        .unwrap();
    assert_eq!(values(layer.weight.val())[1], 8.0);
    let (layer, _) = checkpoint.load().verified().into(linear(8, 4)).unwrap();
    assert_eq!(layer.weight.val().dtype(), DType::F64);
}

#[test]
fn matrices_are_quantised_on_the_way_where_the_block_divides_their_rows() {
    let scheme = QuantScheme {
        value: QuantValue::Q8S,
        param: QuantParam::F32,
        store: QuantStore::Native,
        level: QuantLevel::block([32]),
        mode: QuantMode::Symmetric,
    };
    let (_folder, checkpoint) = pth(&[
        ("layers.0.weight", f32s("a", &[64, 8])),
        ("layers.1.weight", f32s("b", &[5, 64])),
    ]);
    let stack = Stack {
        layers: vec![linear(8, 64), linear(64, 5)],
    };
    let (stack, _) = checkpoint.load().quantised(scheme).into(stack).unwrap();
    let quantised = stack.layers[0].weight.val();
    assert!(matches!(quantised.dtype(), DType::QFloat(_)));
    let expected = turned(&floats("a", 512), [64, 8]);
    let found = values(quantised.dequantize());
    let worst = found.iter().zip(&expected).map(|(x, y)| (x - y).abs());
    assert!(worst.fold(0.0, f32::max) < 0.5 / 127.0 * 0.51 + 1e-6);
    // Rows of five have no blocks of 32.
    assert_eq!(stack.layers[1].weight.val().dtype(), DType::F32);
    let x = Tensor::<Flex, 2>::ones([1, 8], &FlexDevice);
    assert_eq!(stack.layers[0].forward(x).dims(), [1, 64]);
    let packed = scheme.with_store(QuantStore::PackedU32(0));
    let said = checkpoint
        .load()
        .quantised(packed)
        .into(linear(8, 64))
        .unwrap_err();
    assert!(said.to_string().contains("not quantised to"), "{said}");
}

#[test]
fn clones_of_a_layer_are_several_and_one_alone_is_loaded_where_the_file_has_one() {
    let layer = linear(8, 4);
    let clones = || Stack {
        layers: vec![layer.clone(), layer.clone()],
    };
    let (_folder, checkpoint) = pth(&[
        ("layers.0.weight", f32s("a", &[4, 8])),
        ("layers.1.weight", f32s("b", &[4, 8])),
    ]);
    let (stack, report) = checkpoint.load().into(clones()).unwrap();
    assert_eq!(
        values(stack.layers[1].weight.val()),
        turned(&floats("b", 32), [4, 8])
    );
    assert!(report.loaded.iter().all(|one| one.same_as.is_none()));
    let (_folder, one) = pth(&[("layers.0.weight", f32s("a", &[4, 8]))]);
    let said = one.load().into(clones()).unwrap_err().to_string();
    assert!(said.contains("`layers.1.weight`"), "{said}");
    // What the others hold stays.
    let only_first = |load: featherweight::Load| load.with_regex(r"^layers\.0\.");
    for load in [
        one.load().allow_partial(true),
        only_first(one.load()),
        only_first(checkpoint.load()),
    ] {
        let mut again = stack.clone();
        let report = load.apply(&mut again).unwrap();
        assert_eq!(report.kept, ["layers.1.weight"]);
        assert_eq!(
            values(again.layers[0].weight.val()),
            turned(&floats("a", 32), [4, 8])
        );
        assert_eq!(
            values(again.layers[1].weight.val()),
            turned(&floats("b", 32), [4, 8])
        );
    }
    // Copies of one tensor are one again.
    let (_folder, copies) = pth(&[
        ("layers.0.weight", f32s("a", &[4, 8])),
        ("layers.1.weight", f32s("a", &[4, 8])),
    ]);
    let (_, report) = copies.load().into(clones()).unwrap();
    assert_eq!(report.loaded[1].same_as.as_deref(), Some("layers.0.weight"));
    let apart = Stack {
        layers: vec![linear(8, 4), linear(8, 4)],
    };
    assert!(one.load().into(apart).is_err());
}

#[test]
fn a_module_of_another_size_and_one_without_parameters_are_refused() {
    let (_folder, checkpoint) = pth(&[("weight", f32s("weight", &[4, 8]))]);
    let said = checkpoint
        .load()
        .into(linear(8, 5))
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("shape [4, 8]") && said.contains("[5, 8]"),
        "{said}"
    );
    let none = Stack::<Flex> { layers: vec![] };
    let said = checkpoint.load().into(none).unwrap_err().to_string();
    assert!(said.contains("no name in common"), "{said}");
}

#[test]
fn devices_of_another_backend_are_refused_by_their_name() {
    let (_folder, checkpoint) = pth(&[("weight", f32s("weight", &[4, 8]))]);
    let lazy: Linear<Flex> = LinearConfig::new(8, 4).with_bias(false).init(&FlexDevice);
    let load = checkpoint.load().place(|_| "cuda:1");
    let said = load.into(lazy).unwrap_err().to_string();
    assert!(
        said.contains("`.place`") && said.contains("FlexDevice"),
        "{said}"
    );
}

//! Names, parts, dtypes: what a load can be told, and what it refuses.

mod common;

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig, LinearLayout};
use burn::tensor::backend::Backend;
use burn::tensor::quantization::{
    QuantLevel, QuantMode, QuantParam, QuantScheme, QuantStore, QuantValue,
};
use burn::tensor::{DType, Tensor};
use burn_flex::{Flex, FlexDevice};
use checkpoint::{Dtype, Format};
use common::{Stored, f32s, floats, turned, values, write};
use featherweight::{Checkpoint, open};

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
fn clones_of_a_layer_are_several_where_the_file_has_several_and_one_where_it_has_one() {
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
    let (stack, report) = one.load().into(clones()).unwrap();
    assert_eq!(
        values(stack.layers[1].weight.val()),
        turned(&floats("a", 32), [4, 8])
    );
    assert_eq!(report.loaded[1].same_as.as_deref(), Some("layers.0.weight"));
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

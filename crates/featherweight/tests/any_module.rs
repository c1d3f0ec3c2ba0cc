//! Any module, from any checkpoint, on flex.

mod common;

use burn_flex::Flex;
use checkpoint::Format;
use common::{Everything, check, from_pytorch, write};
use featherweight::{Error, IdentityAdapter, Problem, PyTorchToBurnAdapter, Way, open};

type Device = <Flex as burn::tensor::backend::BackendTypes>::Device;

fn device() -> Device {
    Device::default()
}

#[test]
fn every_parameter_of_a_lazy_module_is_what_pytorch_saved_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    for format in [
        Format::Safetensors,
        Format::Pth,
        Format::Sharded,
        Format::ShardedPth,
    ] {
        let path = write(&folder.path().join(format.name()), format, &from_pytorch());
        let module = Everything::<Flex>::lazy(&device());
        let checkpoint = open(&path).unwrap();
        let (module, report) = checkpoint.load().verified().into(module).unwrap();
        check(&module);
        assert!(report.loaded.iter().all(|one| one.way == Way::InPlace));
        assert_eq!(report.unused, ["batch.num_batches_tracked"]);
        let tied = report.loaded.iter().find(|one| one.path == "tied").unwrap();
        assert_eq!(tied.same_as.as_deref(), Some("embedding.weight"));
        let transposed = report.loaded.iter().filter(|one| one.is_transposed);
        assert_eq!(transposed.count(), 9);
    }
}

#[test]
fn every_carrier_loads_the_same_into_lazy_and_initialised_modules() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = write(
        &folder.path().join("m"),
        Format::Safetensors,
        &from_pytorch(),
    );
    let checkpoint = open(&path).unwrap();
    for how in ["streamed", "parallel", "direct", "uring", "mapped"] {
        for (is_lazy, staging_bytes) in [(true, 16 << 20), (false, 1)] {
            let module = match is_lazy {
                true => Everything::<Flex>::lazy(&device()),
                false => Everything::<Flex>::initialised(&device()),
            };
            let load = checkpoint.load().verified().staging_bytes(staging_bytes);
            let load = match how {
                "streamed" => load.streamed(),
                "parallel" => load.parallel(3),
                "direct" => load.parallel_direct(2),
                "uring" => load.uring(4),
                // SAFETY: nobody writes to the file.
                _ => unsafe { load.mapped() },
            };
            match load.into(module) {
                Ok((module, report)) => {
                    check(&module);
                    let is_mapped = report.loaded.iter().any(|one| one.way == Way::Mapped);
                    assert_eq!(is_mapped, how == "mapped");
                }
                Err(Error::NoUring { reason }) => eprintln!("skipped: {reason}"),
                Err(Error::Checkpoint(checkpoint::Error::NoDirectIo { .. })) => {
                    eprintln!("skipped: no direct I/O");
                }
                Err(error) => panic!("{how}: {error}"),
            }
        }
    }
}

#[test]
fn everything_that_does_not_match_is_told_at_once_with_the_nearest_names() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = from_pytorch();
    let moved = tensors.remove("layers.1.widen.bias").unwrap();
    tensors.insert("layers.1.widenn.bias".to_owned(), moved);
    tensors.insert("rank3".to_owned(), common::f32s("rank3", &[2, 3, 5]));
    tensors.insert("numbers".to_owned(), common::f32s("numbers", &[6]));
    let path = write(&folder.path().join("m"), Format::Safetensors, &tensors);
    let module = Everything::<Flex>::lazy(&device());
    let error = open(&path).unwrap().load().into(module).unwrap_err();
    let said = error.to_string();
    let Error::Mismatch(mismatch) = error else {
        panic!("{said}");
    };
    let near = mismatch.problems.iter().any(|problem| {
        matches!(problem, Problem::Missing { path, nearest, .. }
        if path == "layers.1.widen.bias" && nearest == &["layers.1.widenn.bias"])
    });
    assert!(near, "{said}");
    for part in [
        "rank3",
        "[2, 3, 5]",
        "`numbers` is f32",
        "`layers.1.widenn.bias` [24]",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(mismatch.problems.len(), 4, "{said}");
}

#[test]
fn a_square_weight_of_an_unknown_convention_is_refused_unless_somebody_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = std::collections::BTreeMap::new();
    tensors.insert("weight".to_owned(), common::f32s("weight", &[8, 8]));
    let path = folder.path().join("m");
    let mut bytes = safetensors_without_words(&tensors);
    std::fs::write(&path, &mut bytes).unwrap();
    let linear = || {
        burn::nn::LinearConfig::new(8, 8)
            .with_bias(false)
            .init::<Flex>(&device())
    };
    let checkpoint = open(&path).unwrap();
    let said = checkpoint.load().into(linear()).unwrap_err().to_string();
    assert!(said.contains("either way round"), "{said}");
    let straight = checkpoint.load().with_from_adapter(IdentityAdapter);
    let (straight, _) = straight.into(linear()).unwrap();
    let turned = checkpoint.load().with_from_adapter(PyTorchToBurnAdapter);
    let (turned, _) = turned.into(linear()).unwrap();
    let values = common::floats("weight", 64);
    assert_eq!(common::values(straight.weight.val()), values);
    assert_eq!(
        common::values(turned.weight.val()),
        common::turned(&values, [8, 8])
    );
}

/// As tools write it that are nobody's.
fn safetensors_without_words(
    tensors: &std::collections::BTreeMap<String, common::Stored>,
) -> Vec<u8> {
    let (name, (_, shape, bytes)) = tensors.first_key_value().unwrap();
    let header = format!(
        "{{\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[0,{}]}}}}",
        bytes.len()
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(bytes);
    file
}

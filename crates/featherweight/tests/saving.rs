//! A module into a file, and back; and burn-store's face of both.

mod common;

use burn_flex::{Flex, FlexDevice};
use burn_store::{ModuleSnapshot, ModuleStore, SafetensorsStore};
use checkpoint::Format;
use common::{Everything, check, from_pytorch, write};
use featherweight::{BurnToPyTorchAdapter, Error, Store, Way, open, save};

fn loaded(folder: &std::path::Path) -> Everything<Flex> {
    let path = write(
        &folder.join("from.safetensors"),
        Format::Safetensors,
        &from_pytorch(),
    );
    let module = Everything::<Flex>::lazy(&FlexDevice);
    open(&path).unwrap().load().into(module).unwrap().0
}

#[test]
fn what_is_saved_in_any_format_is_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let module = loaded(folder.path());
    for name in ["a.safetensors", "a.pth", "a.bpk"] {
        let path = folder.path().join(name);
        let saved = save(&module).to(&path).unwrap();
        assert!(saved.bytes > 1000 && saved.file == path);
        let again = Everything::<Flex>::initialised(&FlexDevice);
        let (again, report) = open(&path).unwrap().load().verified().into(again).unwrap();
        check(&again);
        // Enums' variants are a level of the path in Burn's files; linear weights are turned in PyTorch's.
        let is_turned = report.loaded.iter().any(|one| one.is_transposed);
        assert_eq!(is_turned, name == "a.pth", "{name}");
    }
    let shards = folder.path().join("shards");
    let saved = save(&module)
        .in_format(Format::Sharded)
        .to(&shards)
        .unwrap();
    let again = Everything::<Flex>::lazy(&FlexDevice);
    check(&open(&saved.file).unwrap().load().into(again).unwrap().0);
}

#[test]
fn what_is_saved_for_pytorch_says_so_and_what_burn_store_reads_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let module = loaded(folder.path());
    let path = folder.path().join("pt.safetensors");
    let for_pytorch = save(&module).with_to_adapter(BurnToPyTorchAdapter);
    for_pytorch.to(&path).unwrap();
    let checkpoint = open(&path).unwrap();
    assert_eq!(checkpoint.index().metadata()["format"], "pt");
    let turned = checkpoint.index().find("layers.0.widen.weight").unwrap();
    assert_eq!(turned.shape, [24, 8]);
    assert!(checkpoint.index().find("batch.weight").is_some());
    let own = folder.path().join("own.safetensors");
    save(&module).to(&own).unwrap();
    let mut again = Everything::<Flex>::lazy(&FlexDevice);
    again
        .load_from(&mut SafetensorsStore::from_file(&own))
        .unwrap();
    check(&again);
    // And what burn-store writes.
    let theirs = folder.path().join("theirs.safetensors");
    again
        .save_into(&mut SafetensorsStore::from_file(&theirs))
        .unwrap();
    let fresh = Everything::<Flex>::lazy(&FlexDevice);
    check(&open(&theirs).unwrap().load().into(fresh).unwrap().0);
}

#[test]
fn a_file_that_is_there_and_a_name_that_says_no_format_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let module = loaded(folder.path());
    let path = folder.path().join("a.safetensors");
    std::fs::write(&path, "mine").unwrap();
    let said = save(&module).to(&path).unwrap_err().to_string();
    assert!(said.contains("is there already"), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    save(&module).overwrite(true).to(&path).unwrap();
    let said = save(&module).to(folder.path().join("model")).unwrap_err();
    assert!(said.to_string().contains("says no format"), "{said}");
}

#[test]
fn two_parameters_of_one_name_and_words_that_contradict_the_layout_are_refused() {
    /// As burn-nn's norm is called, so that both of its parameters are `weight` for PyTorch.
    #[derive(burn::module::Module, Debug)]
    struct LayerNorm<B: burn::tensor::backend::Backend> {
        gamma: burn::module::Param<burn::tensor::Tensor<B, 1>>,
        weight: burn::module::Param<burn::tensor::Tensor<B, 1>>,
    }
    let folder = tempfile::tempdir().unwrap();
    let ones = || burn::module::Param::from_data([1.0f32, 2.0], &FlexDevice);
    let norm = LayerNorm::<Flex> {
        gamma: ones(),
        weight: ones(),
    };
    for name in ["a.pth", "a.safetensors"] {
        let for_pytorch = save(&norm).with_to_adapter(BurnToPyTorchAdapter);
        let said = for_pytorch
            .to(folder.path().join(name))
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("`gamma`") && said.contains("`weight`"),
            "{said}"
        );
        assert!(!folder.path().join(name).exists());
    }
    for key in ["format", "producer"] {
        let said = save(&norm)
            .metadata(key, "burn")
            .to(folder.path().join("b.safetensors"));
        let said = said.unwrap_err().to_string();
        assert!(said.contains(&format!("metadata `{key}`")), "{said}");
    }
}

#[test]
fn a_store_is_all_that_changes_in_a_program_that_uses_burn_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder.path().join("m.pth"), Format::Pth, &from_pytorch());
    let mut module = Everything::<Flex>::initialised(&FlexDevice);
    let mut store = Store::open(&path).unwrap().with(|load| load.parallel(2));
    let applied = module.load_from(&mut store).unwrap();
    check(&module);
    assert_eq!(applied.unused, ["batch.num_batches_tracked"]);
    assert!(applied.missing.is_empty() && applied.errors.is_empty() && applied.skipped.is_empty());
    assert!(
        applied
            .applied
            .contains(&"layers.2.square.weight".to_owned())
    );
    let keys = store.keys().unwrap();
    assert_eq!(keys.len(), from_pytorch().len());
    let snapshot = store.get_snapshot("rank3").unwrap().unwrap();
    let values: Vec<f32> = snapshot.to_data().unwrap().to_vec().unwrap();
    assert_eq!(values, common::floats("rank3", 24));

    let saved = folder.path().join("saved.safetensors");
    module.save_into(&mut Store::from_file(&saved)).unwrap();
    let fresh = Everything::<Flex>::lazy(&FlexDevice);
    check(&open(&saved).unwrap().load().into(fresh).unwrap().0);
    let missing = module.load_from(&mut Store::from_file(folder.path().join("none.pth")));
    assert!(missing.is_err());
}

#[test]
fn a_store_of_a_part_says_what_was_skipped_and_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = from_pytorch();
    tensors.remove("rms.weight");
    let path = write(&folder.path().join("m"), Format::Safetensors, &tensors);
    let mut module = Everything::<Flex>::lazy(&FlexDevice);
    let refused = module.load_from(&mut Store::from_file(&path)).unwrap_err();
    assert!(matches!(refused, Error::Mismatch(_)), "{refused}");
    let mut store = Store::from_file(&path)
        .with_regex("^(layers|rms)")
        .allow_partial(true);
    let applied = module.load_from(&mut store).unwrap();
    assert_eq!(applied.applied.len(), 12);
    let missing: Vec<&str> = applied.missing.iter().map(|(path, _)| &**path).collect();
    assert_eq!(missing, ["rms.gamma"]);
    assert!(applied.skipped.contains(&"rank3".to_owned()));
    assert!(
        !module.rank3.is_initialized(),
        "what is not asked for is left alone"
    );
}

#[test]
fn a_map_of_a_file_in_burns_layout_is_every_parameter_that_lies_there_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.safetensors");
    save(&loaded(folder.path())).to(&path).unwrap();
    let module = Everything::<Flex>::lazy(&FlexDevice);
    // SAFETY: nobody writes to the file.
    let load = unsafe { open(&path).unwrap().load().mapped() };
    let (module, report) = load.into(module).unwrap();
    check(&module);
    let read: Vec<&str> = report
        .loaded
        .iter()
        .filter(|one| one.way != Way::Mapped && one.same_as.is_none())
        .map(|one| &*one.path)
        .collect();
    // Booleans are looked at: a byte that is neither 0 nor 1 is none.
    assert_eq!(read, ["mask"]);
}

//! A backend that the library knows nothing of is handed a tensor at a time, and the report says so.

mod common;

use burn_autodiff::Autodiff;
use burn_flex::{Flex, FlexDevice};
use burn_ndarray::{NdArray, NdArrayDevice};
use checkpoint::Format;
use common::{Everything, check, from_pytorch, write};
use featherweight::{Way, open, save};

#[test]
fn every_parameter_arrives_on_a_backend_that_nobody_knows_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(
        &folder.path().join("m"),
        Format::Safetensors,
        &from_pytorch(),
    );
    let module = Everything::<NdArray>::lazy(&NdArrayDevice::Cpu);
    let load = open(&path).unwrap().load().parallel(2).verified();
    let (module, report) = load.into(module).unwrap();
    check(&module);
    assert!(
        report.loaded.iter().all(|one| one.way == Way::Whole),
        "{report}"
    );
    assert!(
        report.to_string().contains("handed to the backend whole"),
        "{report}"
    );
    let saved = folder.path().join("saved.safetensors");
    save(&module).to(&saved).unwrap();
    let again = Everything::<Autodiff<NdArray>>::initialised(&NdArrayDevice::Cpu);
    check(
        &open(&saved)
            .unwrap()
            .load()
            .verified()
            .into(again)
            .unwrap()
            .0,
    );
}

#[test]
fn flex_under_autodiff_is_filled_in_place_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(
        &folder.path().join("m"),
        Format::Safetensors,
        &from_pytorch(),
    );
    let module = Everything::<Autodiff<Flex>>::initialised(&FlexDevice);
    let (module, report) = open(&path).unwrap().load().verified().into(module).unwrap();
    check(&module);
    assert!(
        report.loaded.iter().all(|one| one.way == Way::InPlace),
        "{report}"
    );
}

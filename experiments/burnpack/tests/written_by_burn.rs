//! A file that Burn's own store wrote is opened by this project's reader of the format, tensor by tensor.

use burn_store::{BurnpackStore, ModuleSnapshot};
use gpt2::layout::Layouts;
use gpt2::{Gpt2, Size};
use lab::Host;

#[test]
fn what_burns_store_writes_is_indexed_here_byte_for_byte() {
    let config = "v61-c32-e16-l2-h2".parse::<Size>().unwrap().config();
    let mut model = Gpt2::<Host>::lazy(&config, u64::MAX, &Default::default());
    model.materialise(&config, || ());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bpk");
    model
        .save_into(&mut BurnpackStore::from_file(&path))
        .unwrap();

    let named = Layouts::built_in().open(&path).unwrap();
    assert_eq!(named.layout, "burn");
    for tensor in model.tensors_mut(&config) {
        let found = named
            .checkpoint
            .tensor(&tensor.spec.name, &tensor.spec.shape);
        let found = found.unwrap();
        let mut bytes = vec![0; found.bytes() as usize];
        found
            .read_rows(0..tensor.spec.shape[0], &mut bytes)
            .unwrap();
        let value = tensor.shards[0].value().into_data();
        assert!(bytes == value.as_bytes(), "{}", tensor.spec.name);
    }
}

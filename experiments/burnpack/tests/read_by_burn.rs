//! A file that this project's writer of the format wrote is opened by Burn's own store, whatever its tensors' dtypes.

use burn_store::{BurnpackStore, ModuleStore};
use checkpoint::{Checkpoint, Dtype, Format, Synthetic, TensorMeta};

#[test]
fn burns_store_reads_every_dtype_that_is_written_here() {
    let dtypes = Dtype::KNOWN.into_iter();
    let dtypes = dtypes.filter(|dtype| *dtype != Dtype::I8);
    let metas: Vec<TensorMeta> = dtypes
        .map(|dtype| TensorMeta {
            name: format!("layer.{dtype}"),
            dtype,
            shape: vec![3, 5],
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bpk");
    let values = Synthetic {
        seed: 7,
        centre: 0.0,
        spread: 1.0,
    };
    checkpoint::write(&path, Format::Burnpack, &metas, &mut |meta, sink| {
        values.fill(meta, sink)
    })
    .unwrap();

    let checkpoint = Checkpoint::open(&path).unwrap();
    let mut store = BurnpackStore::from_file(&path);
    let snapshots = store.get_all_snapshots().unwrap();
    assert_eq!(snapshots.len(), metas.len());
    for meta in &metas {
        let snapshot = &snapshots[&meta.name];
        let expected = match meta.dtype {
            Dtype::Bool => "Bool(Native)".to_owned(),
            dtype => dtype.name().to_uppercase(),
        };
        assert_eq!(format!("{:?}", snapshot.dtype), expected);
        let data = snapshot.to_data().unwrap();
        assert_eq!(data.shape.to_vec(), meta.shape);
        let tensor = checkpoint.find_any(&meta.name).unwrap();
        let mut bytes = vec![0; tensor.bytes() as usize];
        tensor.read_rows(0..3, &mut bytes).unwrap();
        assert_eq!(data.as_bytes(), bytes, "{}", meta.name);
    }
}

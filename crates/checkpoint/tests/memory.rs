//! Preparing a checkpoint takes the memory of a piece of it, whatever its size. In a test binary of its own:
//! the allocator counts everything that happens in the process.

mod heap;

use checkpoint::{Checkpoint, Dtype, Error, Format, Synthetic, TensorMeta, write};
use heap::peak_of;

const LARGEST_BYTES: u64 = 64 << 20;
const ALLOWED_BYTES: u64 = 8 << 20;

#[test]
fn writing_and_digesting_takes_a_few_mebibytes_whatever_the_tensors_take() {
    let elements = (LARGEST_BYTES / 4) as usize;
    let tensors: Vec<TensorMeta> = (0..3)
        .map(|number| TensorMeta {
            name: format!("tensor.{number}"),
            dtype: Dtype::F32,
            shape: vec![elements / 1024, 1024],
        })
        .collect();
    let weights = Synthetic {
        seed: 1,
        centre: 0.0,
        spread: 1.0,
    };
    for format in Format::plain().chain([Format::Burnpack]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format.file_name());
        let (checkpoint, peak) = peak_of(|| {
            write(&path, format, &tensors, &mut |meta, sink| {
                weights.fill(meta, sink)
            })
            .unwrap();
            let checkpoint = Checkpoint::open(&path).unwrap();
            checkpoint
                .tensors()
                .iter()
                .for_each(|tensor| drop(tensor.digest().unwrap()));
            // As Hugging Face keeps it, [inputs, outputs]: gathered, and not held whole either.
            let table = checkpoint.tensors()[0].clone().transposed();
            table.digest().unwrap();
            checkpoint
        });
        assert!(peak <= ALLOWED_BYTES, "{format}: {peak} bytes");

        // The guard: reading a tensor whole is seen, so that the allocator does count.
        let (_, whole) = peak_of(|| {
            let mut whole = Vec::new();
            let collect = |piece: &[u8]| {
                whole.extend_from_slice(piece);
                Ok::<_, Error>(())
            };
            checkpoint.tensors()[0].read_in_pieces(1 << 20, collect)
        });
        assert!(whole >= LARGEST_BYTES, "{whole} bytes");
    }
}

//! Forward computes what Hugging Face's GPT-2 computes on PyTorch: `fixtures/make.py` says how the numbers
//! came about.

use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData};
use burn_flex::Flex;
use checkpoint::{Checkpoint, TensorRange};
use gpt2::{Gpt2, Size};

const SIZE: &str = "v257-c64-e48-l2-h4";

fn fixture(name: &str) -> Checkpoint {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    Checkpoint::open(folder.join(name)).unwrap()
}

fn values(tensor: &TensorRange) -> Vec<f32> {
    let mut bytes = vec![0; tensor.bytes() as usize];
    tensor.read_rows(0..tensor.shape[0], &mut bytes).unwrap();
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&word| f32::from_le_bytes(word))
        .collect()
}

fn logits(max_shard_elements: u64) -> Vec<f32> {
    let config = SIZE.parse::<Size>().unwrap().config();
    let device = Default::default();
    let mut model = Gpt2::<Flex>::lazy(&config, max_shard_elements, &device);
    let checkpoint = fixture("tiny.pth");
    for destination in model.tensors_mut(&config) {
        let tensor = checkpoint
            .tensor(&destination.spec.name, &destination.spec.shape)
            .unwrap();
        let all = values(tensor);
        let row = all.len() / destination.spec.shape[0];
        let shard = |rows: &std::ops::Range<usize>| {
            let part = all[rows.start * row..rows.end * row].to_vec();
            let elements = part.len();
            Tensor::from_data(TensorData::new(part, [elements]), &device)
        };
        let shards = destination.shards.iter().map(|s| shard(&s.rows)).collect();
        destination.assign(shards);
    }
    let tokens = Tensor::<Flex, 2, Int>::from_data([[1, 2, 3]], &device);
    model.forward(tokens).into_data().to_vec().unwrap()
}

fn assert_matches_pytorch(logits: &[f32]) {
    let file = fixture("tiny-logits.safetensors");
    let expected = values(file.tensor("logits", &[1, 3, 257]).unwrap());
    assert_eq!(logits.len(), expected.len());
    let magnitude = expected
        .iter()
        .fold(0f32, |most, value| most.max(value.abs()));
    assert!(
        magnitude > 1.0,
        "the fixture's logits say little: {magnitude} at most"
    );
    for (ours, theirs) in logits.iter().zip(&expected) {
        let error = (ours - theirs).abs() / magnitude;
        assert!(error <= 1e-4, "{ours} for {theirs}: {error} of the largest");
    }
}

#[test]
fn forward_gives_pytorchs_logits() {
    assert_matches_pytorch(&logits(u64::MAX));
}

#[test]
fn forward_gives_pytorchs_logits_with_the_vocabulary_tables_in_shards() {
    // 100 rows of 48: three shards of 86, 86 and 85 rows.
    assert_matches_pytorch(&logits(100 * 48));
}

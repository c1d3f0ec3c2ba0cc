//! A model that is only built, and parameters that are assigned.

use burn::tensor::Tensor;
use burn_flex::Flex;
use gpt2::{Gpt2, Size};

fn config() -> gpt2::Config {
    "v10-c4-e4-l1-h2".parse::<Size>().unwrap().config()
}

fn lazy(max_shard_elements: u64) -> Gpt2<Flex> {
    Gpt2::lazy(&config(), max_shard_elements, &Default::default())
}

#[test]
fn a_lazy_model_has_no_parameter_initialised_and_asking_for_them_initialises_none() {
    let mut model = lazy(u64::MAX);
    for _ in 0..2 {
        for tensor in model.tensors_mut(&config()) {
            assert!(tensor.shards.iter().all(|shard| !shard.is_initialised()));
        }
    }
}

#[test]
fn materialising_gives_every_parameter_a_value_of_its_shape() {
    let mut model = lazy(u64::MAX);
    let mut parameters = 0;
    model.materialise(&config(), || parameters += 1);
    assert_eq!(parameters, config().tensors().len());
    for tensor in model.tensors_mut(&config()) {
        assert!(tensor.shards.iter().all(|shard| shard.is_initialised()));
        assert_eq!(tensor.shards[0].shape(), tensor.spec.shape);
    }
}

#[test]
fn assigning_a_lazy_parameter_does_not_initialise_it_first_and_keeps_every_element() {
    let mut model = lazy(u64::MAX);
    let device = Default::default();
    for tensor in model.tensors_mut(&config()) {
        let elements = tensor.spec.elements() as i64;
        let value = Tensor::<Flex, 1, burn::tensor::Int>::arange(0..elements, &device).float();
        tensor.assign(vec![value]);
    }
    for tensor in model.tensors_mut(&config()) {
        let values: Vec<f32> = tensor.shards[0].value().into_data().to_vec().unwrap();
        assert!(
            values
                .iter()
                .enumerate()
                .all(|(index, &value)| value == index as f32)
        );
    }
}

#[test]
fn shards_cover_every_row_once_within_the_limit() {
    for limit in [1, 4, 11, 12, 20, 39, 40, 1000] {
        let mut model = lazy(limit);
        let table = model.tensors_mut(&config()).into_iter().next().unwrap();
        let mut next = 0;
        for shard in &table.shards {
            assert_eq!(shard.rows.start, next);
            next = shard.rows.end;
            let elements = shard.rows.len() as u64 * 4;
            assert!(
                elements <= limit.max(4),
                "{elements} elements for a limit of {limit}"
            );
        }
        assert_eq!(next, 10);
    }
}

#[test]
fn taking_the_values_out_leaves_the_parameters_lazy() {
    let mut model = lazy(u64::MAX);
    model.materialise(&config(), || ());
    for tensor in model.tensors_mut(&config()) {
        let elements = tensor.spec.elements();
        let taken = tensor.take();
        assert_eq!(taken[0].shape().num_elements() as u64, elements);
    }
    for tensor in model.tensors_mut(&config()) {
        assert!(tensor.shards.iter().all(|shard| !shard.is_initialised()));
    }
}

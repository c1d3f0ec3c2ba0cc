//! Forward to numbers on the host. Generic; each platform instantiates it once, in this crate.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use gpt2::Gpt2;

use super::BringLayer;
use crate::Error;

pub(super) fn logits<B: Backend>(
    model: &mut Gpt2<B>,
    tokens: &[i32],
    device: &B::Device,
    bring: &mut BringLayer<'_, B>,
) -> Result<Vec<f32>, Error> {
    let tokens = TensorData::new(tokens.to_vec(), [1, tokens.len()]);
    let mut x = model.embed(Tensor::<B, 2, Int>::from_data(tokens, device));
    for layer in 0..model.layers() {
        bring(model, layer)?;
        x = model.layer(layer, x);
    }
    let data = model
        .head(x)
        .try_into_data()
        .map_err(|error| Error::Device {
            device: format!("{device:?}"),
            reason: format!("the logits could not be read back: {error:?}"),
        })?;
    Ok(data.iter::<f32>().collect())
}

//! What a checkpoint's companions say of the model: read, and believed or refused. Tensors do not tell how many heads a model
//! has, nor what it computes between its layers.

mod find;
mod hugging_face;
mod model_args;
mod write;

use std::fmt;

use gpt2::{Activation, Config, Epsilon};

pub use find::find;
pub use write::{FILE, METADATA_KEY, metadata, write};

/// What somebody says of a model. What is not said is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// Who says so: a file, or a part of one.
    pub by: String,
    pub vocabulary: Said<usize>,
    pub context: Said<usize>,
    pub embedding: Said<usize>,
    pub layers: Said<usize>,
    pub heads: Said<usize>,
    pub inner: Said<usize>,
    pub qkv_bias: Said<bool>,
    pub biases: Said<bool>,
    pub activation: Said<Activation>,
    pub epsilon: Said<Epsilon>,
    pub is_scaled: Said<bool>,
    pub is_scaled_by_layer: Said<bool>,
    pub is_tied: Said<bool>,
}

/// A value, with what it is called where it is said.
pub type Said<T> = Option<(T, &'static str)>;

impl Told {
    /// The model that the tensors show, with what is told of it. `shown` has everything that tensors tell: a difference is
    /// refused, for then one of the two is of another model.
    ///
    /// # Errors
    ///
    /// Every field that contradicts the tensors, with both values.
    pub fn complete(&self, shown: Config) -> Result<Config, String> {
        let mut wrong = Vec::new();
        contradict(&mut wrong, self.vocabulary, shown.vocabulary);
        contradict(&mut wrong, self.context, shown.context);
        contradict(&mut wrong, self.embedding, shown.embedding);
        contradict(&mut wrong, self.inner, shown.inner());
        contradict(&mut wrong, self.qkv_bias, shown.qkv_bias);
        contradict(&mut wrong, self.biases, shown.variant.biases);
        let mut config = shown;
        // Fewer layers than are told are missing tensors, which are named where the model's are looked for.
        match self.layers {
            Some((layers, name)) if layers < shown.layers => wrong.push(format!(
                "`{name}` is {layers}, and the checkpoint has tensors of {}",
                shown.layers
            )),
            Some((layers, _)) => config.layers = layers,
            None => {}
        }
        if let Some((heads, name)) = self.heads {
            match heads > 0 && shown.embedding.is_multiple_of(heads) {
                true => config.heads = heads,
                false => wrong.push(format!(
                    "`{name}` is {heads}, which does not divide the width of {}",
                    shown.embedding
                )),
            }
        }
        let variant = &mut config.variant;
        take(&mut variant.activation, self.activation);
        take(&mut variant.epsilon, self.epsilon);
        take(&mut variant.is_scaled, self.is_scaled);
        take(&mut variant.is_scaled_by_layer, self.is_scaled_by_layer);
        match wrong.is_empty() {
            true => Ok(config.normal()),
            false => Err(format!("{}: {}", self.by, wrong.join("; "))),
        }
    }
}

fn take<T>(value: &mut T, said: Said<T>) {
    if let Some((said, _)) = said {
        *value = said;
    }
}

fn contradict<T: PartialEq + fmt::Display>(wrong: &mut Vec<String>, said: Said<T>, shown: T) {
    if let Some((said, name)) = said
        && said != shown
    {
        wrong.push(format!(
            "`{name}` is {said}, and the checkpoint's tensors say {shown}"
        ));
    }
}

//! What a checkpoint's companions say of the model: read, and believed or refused. Tensors do not tell how many heads a model
//! has, nor what it computes between its layers.

mod beside;
mod find;
mod hugging_face;
mod model_args;
mod write;

use std::fmt;

use gpt2::{Activation, Config, Epsilon, MOST_LAYERS};

pub use beside::{check, heads};
pub use find::{check_beside, find};
pub use model_args::NANOGPTS_HEAD;
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
    /// Of these, the names of those that nobody wrote down: what goes without saying.
    pub defaults: Vec<&'static str>,
}

/// A value, with what it is called where it is said.
pub type Said<T> = Option<(T, &'static str)>;

impl Told {
    /// What both say, together.
    ///
    /// # Errors
    ///
    /// Every field of which they say different things.
    fn and(self, other: Told) -> Result<Told, String> {
        let mut wrong = Vec::new();
        let by = [&*self.by, &*other.by];
        let (a, b) = (&self.defaults, &other.defaults);
        let mut both = Both {
            by,
            defaults: [a, b],
            wrong: &mut wrong,
        };
        let told = Told {
            by: by.join(" and "),
            vocabulary: both.of(self.vocabulary, other.vocabulary),
            context: both.of(self.context, other.context),
            embedding: both.of(self.embedding, other.embedding),
            layers: both.of(self.layers, other.layers),
            heads: both.of(self.heads, other.heads),
            inner: both.of(self.inner, other.inner),
            qkv_bias: both.of(self.qkv_bias, other.qkv_bias),
            biases: both.of(self.biases, other.biases),
            activation: both.of(self.activation, other.activation),
            epsilon: both.of(self.epsilon, other.epsilon),
            is_scaled: both.of(self.is_scaled, other.is_scaled),
            is_scaled_by_layer: both.of(self.is_scaled_by_layer, other.is_scaled_by_layer),
            is_tied: both.of(self.is_tied, other.is_tied),
            defaults: a.iter().filter(|name| b.contains(name)).copied().collect(),
        };
        // One word may say two things.
        wrong.dedup();
        match wrong.is_empty() {
            true => Ok(told),
            false => Err(wrong.join("; ")),
        }
    }

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
            Some((layers, name)) if layers > MOST_LAYERS => wrong.push(format!(
                "`{name}` is {layers}, and no model has more than {MOST_LAYERS}"
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
        wrong.dedup();
        match wrong.is_empty() {
            true => Ok(config.normal()),
            false => Err(format!("{}: {}", self.by, wrong.join("; "))),
        }
    }
}

/// Two who tell of one model.
struct Both<'a> {
    by: [&'a str; 2],
    defaults: [&'a [&'static str]; 2],
    wrong: &'a mut Vec<String>,
}

impl Both<'_> {
    /// What goes without saying gives way to what is said.
    fn of<T: PartialEq + fmt::Debug>(&mut self, a: Said<T>, b: Said<T>) -> Said<T> {
        let is_default = |said: &Said<T>, of: usize| {
            said.as_ref()
                .is_some_and(|(_, name)| self.defaults[of].contains(name))
        };
        match (is_default(&a, 0), is_default(&b, 1)) {
            (true, _) if b.is_some() => return b,
            (_, true) if a.is_some() => return a,
            _ => {}
        }
        if let (Some((a, name)), Some((b, other))) = (&a, &b)
            && a != b
        {
            self.wrong.push(format!(
                "{}: `{name}` is {a:?}, and {}: `{other}` is {b:?}: mend one of them, or take it away",
                self.by[0], self.by[1]
            ));
        }
        a.or(b)
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

#[cfg(test)]
mod tests {
    use gpt2::Size;

    use super::*;

    #[test]
    fn more_layers_than_any_model_has_are_refused_before_they_are_listed() {
        let shown = "v9-c8-e4-l1-h2".parse::<Size>().unwrap().config();
        let told = Told {
            by: "config.json".to_owned(),
            layers: Some((4_294_967_295, "n_layer")),
            ..Told::default()
        };
        let error = told.complete(shown).unwrap_err();
        assert!(error.contains("`n_layer` is 4294967295"), "{error}");
    }
}

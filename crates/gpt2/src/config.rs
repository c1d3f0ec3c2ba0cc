//! How large a GPT-2 is: the four published sizes, and free-form ones for tests.

use std::fmt;
use std::str::FromStr;

use crate::Variant;

/// The dimensions of a GPT-2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Config {
    /// Rows of the vocabulary tables.
    pub vocabulary: usize,
    /// Rows of the position table: the longest sequence the model can read.
    pub context: usize,
    /// Width of the residual stream.
    pub embedding: usize,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Attention heads per block; they divide `embedding`.
    pub heads: usize,
    /// Whether the query, key and value projections have biases (OpenAI's weights do).
    pub qkv_bias: bool,
    /// In what it computes otherwise than the book's.
    pub variant: Variant,
}

impl Config {
    /// Width of the feed-forward's hidden layer.
    pub fn inner(&self) -> usize {
        self.variant.inner.unwrap_or(4 * self.embedding)
    }

    /// With what goes without saying left unsaid, so that equal models are equal.
    pub fn normal(mut self) -> Config {
        if self.variant.inner == Some(4 * self.embedding) {
            self.variant.inner = None;
        }
        self
    }

    /// Number of parameters, without the causal masks that PyTorch keeps as buffers.
    pub fn parameters(&self) -> u64 {
        self.tensors().iter().map(|tensor| tensor.elements()).sum()
    }

    /// About as many, without a list of the tensors.
    fn about_parameters(&self) -> f64 {
        let [vocabulary, context, embedding, inner] =
            [self.vocabulary, self.context, self.embedding, self.inner()].map(|size| size as f64);
        let tables = (2.0 * vocabulary + context) * embedding;
        tables + self.layers as f64 * embedding * (4.0 * embedding + 2.0 * inner)
    }

    /// Elements of the largest tensor, a vocabulary table in every published size.
    pub fn largest_tensor_elements(&self) -> u64 {
        self.tensors()
            .iter()
            .map(|tensor| tensor.elements())
            .max()
            .unwrap_or(0)
    }
}

/// A named size, or a free-form one.
///
/// Free-form sizes are written `v257-c64-e48-l2-h4` (vocabulary, context, embedding, layers, heads), with words behind for what
/// differs from the book's model:
///
/// | word | |
/// | --- | --- |
/// | `nobias` | no query, key and value biases |
/// | `bare` | no biases of other linear layers and of layer norms |
/// | `i128` | a feed-forward of this width, not four times the embedding |
/// | `gelu`, `quickgelu`, `relu`, `silu` | another activation than GELU's tanh approximation |
/// | `eps0.000001` | what layer norms add to the variance, not 0.00001 |
/// | `unscaled` | scores of attention are not divided by the root of a head's width |
/// | `bylayer` | they are divided by the layer's number |
/// | `tied` | the output head is the token table |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Size {
    /// 124M by its published name; 163 037 184 parameters with its head untied.
    Small,
    /// 355M by its published name; 406 286 336 parameters with its head untied.
    Medium,
    /// 774M by its published name; 838 359 040 parameters with its head untied.
    Large,
    /// 1558M by its published name; 1 638 022 400 parameters with its head untied.
    Xl,
    /// Any other dimensions.
    Custom(Config),
}

impl Size {
    /// The published sizes, smallest first.
    pub const NAMED: [Size; 4] = [Size::Small, Size::Medium, Size::Large, Size::Xl];

    /// The dimensions of this size. Source: Radford et al., *Language Models are Unsupervised
    /// Multitask Learners*, table 2; heads from the published checkpoints.
    pub fn config(self) -> Config {
        let published = |embedding, layers, heads| Config {
            vocabulary: 50257,
            context: 1024,
            embedding,
            layers,
            heads,
            qkv_bias: true,
            variant: Variant::default(),
        };
        match self {
            Size::Small => published(768, 12, 12),
            Size::Medium => published(1024, 24, 16),
            Size::Large => published(1280, 36, 20),
            Size::Xl => published(1600, 48, 25),
            Size::Custom(config) => config,
        }
    }

    /// The size with these dimensions, named where it has a name.
    pub fn of(config: Config) -> Size {
        Size::NAMED
            .into_iter()
            .find(|size| size.config() == config.normal())
            .unwrap_or(Size::Custom(config.normal()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Small => f.write_str("small"),
            Size::Medium => f.write_str("medium"),
            Size::Large => f.write_str("large"),
            Size::Xl => f.write_str("xl"),
            Size::Custom(config) => write!(
                f,
                "v{}-c{}-e{}-l{}-h{}{}{}",
                config.vocabulary,
                config.context,
                config.embedding,
                config.layers,
                config.heads,
                if config.qkv_bias { "" } else { "-nobias" },
                config.variant
            ),
        }
    }
}

/// Sizes are lists of tensors: one with more layers than any model has would be a list without end.
pub const MOST_LAYERS: usize = 10_000;
/// 128 TiB in f32.
const MOST_PARAMETERS: f64 = 3.5e13;

/// A size that is neither a published name nor a valid free-form one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown size `{given}`: {reason}")]
pub struct InvalidSize {
    given: String,
    reason: &'static str,
}

impl FromStr for Size {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(size) = Size::NAMED
            .into_iter()
            .find(|size| size.to_string() == text)
        {
            return Ok(size);
        }
        let invalid = |reason| InvalidSize {
            given: text.to_owned(),
            reason,
        };
        const SHAPE: &str =
            "use small, medium, large, xl, or a free-form size such as v257-c64-e48-l2-h4";
        const WORDS: &str = "behind its dimensions stand nobias, bare, i128, gelu, quickgelu, relu, silu, eps0.000001, unscaled, \
                             bylayer and tied, where they are so";
        let fields: Vec<&str> = text.split('-').collect();
        let [v, c, e, l, h, words @ ..] = &fields[..] else {
            return Err(invalid(SHAPE));
        };
        let (mut qkv_bias, mut variant) = (true, Variant::default());
        for &word in words {
            match word {
                "nobias" => qkv_bias = false,
                word if variant.take_up(word) => {}
                _ => return Err(invalid(WORDS)),
            }
        }
        let dimension = |field: &str, letter: char| {
            field
                .strip_prefix(letter)
                .and_then(|digits| digits.parse::<u32>().ok())
                .filter(|&value| value > 0)
                .map(|value| value as usize)
                .ok_or_else(|| invalid(SHAPE))
        };
        let config = Config {
            vocabulary: dimension(v, 'v')?,
            context: dimension(c, 'c')?,
            embedding: dimension(e, 'e')?,
            layers: dimension(l, 'l')?,
            heads: dimension(h, 'h')?,
            qkv_bias,
            variant,
        }
        .normal();
        if !config.embedding.is_multiple_of(config.heads) {
            return Err(invalid("the heads must divide the embedding"));
        }
        if config.layers > MOST_LAYERS || config.about_parameters() > MOST_PARAMETERS {
            return Err(invalid("no machine holds so large a model"));
        }
        Ok(Size::of(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sizes_have_the_parameter_counts_of_the_untied_model() {
        let counts = Size::NAMED.map(|size| size.config().parameters());
        assert_eq!(
            counts,
            [163_037_184, 406_286_336, 838_359_040, 1_638_022_400]
        );
    }

    #[test]
    fn a_size_survives_being_printed_and_parsed() {
        for text in [
            "small",
            "xl",
            "v257-c64-e48-l2-h4",
            "v9-c8-e4-l1-h2-nobias",
            "v50257-c1024-e768-l12-h12-tied",
            "v9-c8-e4-l1-h2-nobias-i12-bare-relu-eps0.000001-unscaled-bylayer-tied",
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.to_string(), text);
        }
    }

    #[test]
    fn what_goes_without_saying_is_not_said() {
        let size: Size = "v9-c8-e4-l1-h2-i16-gelutanh-eps0.00001".parse().unwrap();
        assert_eq!(size.to_string(), "v9-c8-e4-l1-h2");
    }

    #[test]
    fn nonsense_sizes_are_refused_with_a_reason() {
        for text in [
            "",
            "tiny",
            "v0-c1-e1-l1-h1",
            "v9-c8-e5-l1-h2",
            "v1-c1-e1-l1",
            "v9-c8-e4-l1-h2-i0",
            "v9-c8-e4-l1-h2-eps0",
            "v9-c8-e4-l1-h2-epsNaN",
            "v9-c8-e4-l1-h2-tanh",
            "v9-c8-e4-l4000000000-h2",
            "v4000000000-c8-e4000000-l1-h2",
            "v9-c8-e4-l1-h2-i99999999999999",
        ] {
            let error = text.parse::<Size>().unwrap_err().to_string();
            assert!(error.contains("unknown size"), "{error}");
        }
    }
}

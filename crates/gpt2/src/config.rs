//! How large a GPT-2 is: the four published sizes, and free-form ones for tests.

use std::fmt;
use std::str::FromStr;

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
}

impl Config {
    /// Number of parameters, without the causal masks that PyTorch keeps as buffers.
    pub fn parameters(&self) -> u64 {
        self.tensors().iter().map(|tensor| tensor.elements()).sum()
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
/// Free-form sizes are written `v257-c64-e48-l2-h4` (vocabulary, context, embedding, layers, heads),
/// with `-nobias` appended for a model without query, key and value biases.
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
            .find(|size| size.config() == config)
            .unwrap_or(Size::Custom(config))
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
                "v{}-c{}-e{}-l{}-h{}{}",
                config.vocabulary,
                config.context,
                config.embedding,
                config.layers,
                config.heads,
                if config.qkv_bias { "" } else { "-nobias" }
            ),
        }
    }
}

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
        let (dimensions, qkv_bias) = match text.strip_suffix("-nobias") {
            Some(rest) => (rest, false),
            None => (text, true),
        };
        let fields: Vec<&str> = dimensions.split('-').collect();
        let [v, c, e, l, h] = fields[..] else {
            return Err(invalid(SHAPE));
        };
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
        };
        if !config.embedding.is_multiple_of(config.heads) {
            return Err(invalid("the heads must divide the embedding"));
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
        for text in ["small", "xl", "v257-c64-e48-l2-h4", "v9-c8-e4-l1-h2-nobias"] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.to_string(), text);
        }
    }

    #[test]
    fn nonsense_sizes_are_refused_with_a_reason() {
        for text in [
            "",
            "tiny",
            "v0-c1-e1-l1-h1",
            "v9-c8-e5-l1-h2",
            "v1-c1-e1-l1",
        ] {
            let error = text.parse::<Size>().unwrap_err().to_string();
            assert!(error.contains("unknown size"), "{error}");
        }
    }
}

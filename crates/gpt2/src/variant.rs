//! In what a GPT-2 can differ from the published ones and still be one: everything beside its dimensions that changes what it
//! computes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// How a GPT-2 computes. The default is the book's, and OpenAI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Width of the feed-forward's hidden layer, where it is not four times the embedding.
    pub inner: Option<usize>,
    /// Whether linear layers and layer norms have biases, those of query, key and value apart.
    pub biases: bool,
    /// Between the feed-forward's two layers.
    pub activation: Activation,
    /// What layer norms add to the variance.
    pub epsilon: Epsilon,
    /// Whether scores of attention are divided by the square root of a head's width.
    pub is_scaled: bool,
    /// Whether they are divided by the layer's number, too, which counts from 1.
    pub is_scaled_by_layer: bool,
    /// Whether the output head is the token table.
    pub is_tied: bool,
}

impl Default for Variant {
    fn default() -> Variant {
        Variant {
            inner: None,
            biases: true,
            activation: Activation::default(),
            epsilon: Epsilon::default(),
            is_scaled: true,
            is_scaled_by_layer: false,
            is_tied: false,
        }
    }
}

/// An activation function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// GELU by its tanh approximation (Hendrycks and Gimpel, 2016), as GPT-2 was trained with.
    #[default]
    GeluTanh,
    /// GELU by the error function.
    Gelu,
    /// `x σ(1.702 x)` (Hendrycks and Gimpel, 2016).
    QuickGelu,
    /// `max(x, 0)`
    Relu,
    /// `x σ(x)`, also called swish.
    Silu,
}

impl Activation {
    /// Every activation.
    pub const ALL: [Activation; 5] = [
        Activation::GeluTanh,
        Activation::Gelu,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Silu,
    ];

    /// The word in free-form sizes.
    pub const fn word(self) -> &'static str {
        match self {
            Activation::GeluTanh => "gelutanh",
            Activation::Gelu => "gelu",
            Activation::QuickGelu => "quickgelu",
            Activation::Relu => "relu",
            Activation::Silu => "silu",
        }
    }
}

/// What a layer norm adds to the variance: a small positive number.
#[derive(Debug, Clone, Copy)]
pub struct Epsilon(f64);

impl Epsilon {
    /// `None` where it is no finite number above 0 and at most 1.
    pub fn new(value: f64) -> Option<Epsilon> {
        (value > 0.0 && value <= 1.0).then_some(Epsilon(value))
    }

    /// The number.
    pub fn value(self) -> f64 {
        self.0
    }
}

impl Default for Epsilon {
    /// 1e-5.
    fn default() -> Epsilon {
        Epsilon(1e-5)
    }
}

impl PartialEq for Epsilon {
    fn eq(&self, other: &Epsilon) -> bool {
        self.0 == other.0
    }
}

/// It is never NaN.
impl Eq for Epsilon {}

impl Hash for Epsilon {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl fmt::Display for Variant {
    /// The words of a free-form size, each behind a hyphen: `-i128-relu-tied`; nothing for the book's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Variant::default();
        if let Some(inner) = self.inner {
            write!(f, "-i{inner}")?;
        }
        if !self.biases {
            f.write_str("-bare")?;
        }
        if self.activation != usual.activation {
            write!(f, "-{}", self.activation.word())?;
        }
        if self.epsilon != usual.epsilon {
            // Without an exponent, whose sign would be a hyphen.
            write!(f, "-eps{}", self.epsilon.value())?;
        }
        if !self.is_scaled {
            f.write_str("-unscaled")?;
        }
        if self.is_scaled_by_layer {
            f.write_str("-bylayer")?;
        }
        if self.is_tied {
            f.write_str("-tied")?;
        }
        Ok(())
    }
}

impl FromStr for Variant {
    type Err = String;

    /// The words of a free-form size, with hyphens between: `gelu-tied`.
    fn from_str(text: &str) -> Result<Variant, String> {
        let mut variant = Variant::default();
        for word in text.split('-').filter(|word| !word.is_empty()) {
            if !variant.take_up(word) {
                return Err(format!("`{word}` is nothing that a GPT-2 can differ in"));
            }
        }
        Ok(variant)
    }
}

impl Variant {
    /// Takes up a word of a free-form size; whether it is one.
    pub(crate) fn take_up(&mut self, word: &str) -> bool {
        let activation = Activation::ALL
            .into_iter()
            .find(|known| known.word() == word);
        if let Some(activation) = activation {
            self.activation = activation;
            return true;
        }
        match word {
            "bare" => self.biases = false,
            "unscaled" => self.is_scaled = false,
            "bylayer" => self.is_scaled_by_layer = true,
            "tied" => self.is_tied = true,
            _ => {
                if let Some(epsilon) = word.strip_prefix("eps") {
                    let epsilon = epsilon.parse().ok().and_then(Epsilon::new);
                    self.epsilon = match epsilon {
                        Some(epsilon) => epsilon,
                        None => return false,
                    };
                } else if let Some(inner) = word.strip_prefix('i') {
                    let inner = inner.parse::<u32>().ok().filter(|&inner| inner > 0);
                    self.inner = match inner {
                        Some(inner) => Some(inner as usize),
                        None => return false,
                    };
                } else {
                    return false;
                }
            }
        }
        true
    }
}

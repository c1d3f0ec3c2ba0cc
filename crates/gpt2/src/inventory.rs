//! The tensors of a GPT-2 checkpoint: names, shapes and how the book initialises them.

use crate::Config;

/// How a parameter is initialised when no checkpoint is loaded: PyTorch's defaults, which the book
/// relies on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initial {
    /// Standard normal: `torch.nn.Embedding`.
    Normal,
    /// Uniform in `±bound`, with `bound = 1 / sqrt(inputs)`: weights and biases of `torch.nn.Linear`.
    Uniform {
        /// The largest magnitude drawn.
        bound: f64,
    },
    /// One everywhere: the scale of a layer norm.
    Ones,
    /// Zero everywhere: the shift of a layer norm.
    Zeros,
}

/// A tensor of the checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    /// Its name in the book's state dict.
    pub name: String,
    /// `[rows]` or `[rows, columns]`; linears are `[outputs, inputs]`.
    pub shape: Vec<usize>,
    /// How it starts out without a checkpoint.
    pub initial: Initial,
    /// The layer (transformer block) that it is of; `None` for what lies outside the layers.
    pub layer: Option<usize>,
}

impl TensorSpec {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }

    /// The path of the [`Gpt2`](crate::Gpt2)'s parameter that holds it; of this shard's, where it is a vocabulary table.
    pub fn module_path(&self, shard: usize) -> String {
        match &*self.name {
            "tok_emb.weight" => return format!("tok_emb.shards.{shard}"),
            "out_head.weight" => return format!("out_head.shards.{shard}"),
            "pos_emb.weight" => return "pos_emb".to_owned(),
            _ => {}
        }
        let parts = [
            (".att.W_", ".attention."),
            (".att.", ".attention."),
            (".ff.layers.0.", ".widen."),
            (".ff.layers.2.", ".narrow."),
        ];
        let part = parts.iter().find(|(name, _)| self.name.contains(name));
        part.map_or_else(
            || self.name.clone(),
            |(name, path)| self.name.replace(name, path),
        )
    }

    /// The path of the parameter within its layer ([`Gpt2::block_mut`](crate::Gpt2::block_mut)); `None` for what lies outside the
    /// layers.
    pub fn layer_path(&self) -> Option<String> {
        let whole = self.module_path(0);
        let path = whole.strip_prefix(&format!("trf_blocks.{}.", self.layer?))?;
        Some(path.to_owned())
    }
}

/// From a checkpoint's names to the paths of [`Gpt2`](crate::Gpt2)'s parameters, for Burn's own stores: regular
/// expressions and what takes the place of their match. The vocabulary tables must be whole (one shard).
pub const MODULE_PATHS: [(&str, &str); 6] = [
    (r"^(tok_emb|out_head)\.weight$", "$1.shards.0"),
    (r"^pos_emb\.weight$", "pos_emb"),
    (r"\.att\.W_(query|key|value)\.", ".attention.$1."),
    (r"\.att\.out_proj\.", ".attention.out_proj."),
    (r"\.ff\.layers\.0\.", ".widen."),
    (r"\.ff\.layers\.2\.", ".narrow."),
];

impl Config {
    /// Every tensor of the model, in the order of the book's `state_dict()` (mask buffers left out:
    /// the model builds its mask).
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = Inventory {
            tensors: Vec::with_capacity(5 + 16 * self.layers),
            layer: None,
        };
        list.embeddings(self);
        (0..self.layers).for_each(|layer| list.block(self, layer));
        list.end(self);
        list.tensors
    }

    /// Those of one layer.
    pub(crate) fn layer_tensors(&self, layer: usize) -> Vec<TensorSpec> {
        let mut list = Inventory::default();
        list.block(self, layer);
        list.tensors
    }

    /// Those outside of the layers.
    pub(crate) fn outer_tensors(&self) -> Vec<TensorSpec> {
        let mut list = Inventory::default();
        list.embeddings(self);
        list.end(self);
        list.tensors
    }
}

#[derive(Default)]
struct Inventory {
    tensors: Vec<TensorSpec>,
    /// The layer that what is added next is of.
    layer: Option<usize>,
}

impl Inventory {
    fn embeddings(&mut self, config: &Config) {
        let width = config.embedding;
        let tables = [("tok_emb", config.vocabulary), ("pos_emb", config.context)];
        for (name, rows) in tables {
            self.add(format!("{name}.weight"), &[rows, width], Initial::Normal);
        }
    }

    fn block(&mut self, config: &Config, layer: usize) {
        let width = config.embedding;
        let block = format!("trf_blocks.{layer}");
        self.layer = Some(layer);
        for projection in ["W_query", "W_key", "W_value"] {
            let name = format!("{block}.att.{projection}");
            self.linear(&name, width, width, config.qkv_bias);
        }
        let (inner, biases) = (config.inner(), config.variant.biases);
        self.linear(&format!("{block}.att.out_proj"), width, width, biases);
        self.linear(&format!("{block}.ff.layers.0"), width, inner, biases);
        self.linear(&format!("{block}.ff.layers.2"), inner, width, biases);
        self.norm(&format!("{block}.norm1"), width, biases);
        self.norm(&format!("{block}.norm2"), width, biases);
        self.layer = None;
    }

    fn end(&mut self, config: &Config) {
        self.norm("final_norm", config.embedding, config.variant.biases);
        if !config.variant.is_tied {
            self.linear("out_head", config.embedding, config.vocabulary, false);
        }
    }

    fn add(&mut self, name: impl Into<String>, shape: &[usize], initial: Initial) {
        self.tensors.push(TensorSpec {
            name: name.into(),
            shape: shape.to_vec(),
            initial,
            layer: self.layer,
        });
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize, bias: bool) {
        let initial = Initial::Uniform {
            bound: 1.0 / (inputs as f64).sqrt(),
        };
        self.add(format!("{name}.weight"), &[outputs, inputs], initial);
        if bias {
            self.add(format!("{name}.bias"), &[outputs], initial);
        }
    }

    fn norm(&mut self, name: &str, width: usize, bias: bool) {
        self.add(format!("{name}.scale"), &[width], Initial::Ones);
        if bias {
            self.add(format!("{name}.shift"), &[width], Initial::Zeros);
        }
    }
}

//! The Burn module and its forward.

mod attention;
mod block;
mod layers;
mod slots;

use burn::module::{AutodiffModule, Module, ModuleMapper, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};

use crate::Config;
#[cfg(doc)]
use crate::TensorSpec;
pub use block::Block;
use layers::{LayerNorm, Matrix, RowSharded, Specs, rows_of};
pub use slots::{ShardMut, TensorMut};
use slots::{Slot, Slots};

/// GPT-2 on backend `B`. Created lazily: see [`Gpt2::lazy`].
#[derive(Module, Debug)]
pub struct Gpt2<B: Backend> {
    tok_emb: RowSharded<B>,
    pos_emb: Matrix<B>,
    trf_blocks: Vec<Block<B>>,
    final_norm: LayerNorm<B>,
    /// None where the head is the token table.
    out_head: Option<RowSharded<B>>,
}

impl<B: Backend> Gpt2<B> {
    /// A model whose parameters hold no memory yet: each is initialised as [`TensorSpec::initial`]
    /// says, on `device` and in the device's default float dtype, when it is first used, unless it is
    /// assigned before ([`ShardMut::assign`]). This is what PyTorch calls the meta device.
    ///
    /// A vocabulary table of more than `max_shard_elements` elements is split into the fewest row
    /// shards of nearly equal height that stay within it (never below one row a shard).
    pub fn lazy(config: &Config, max_shard_elements: u64, device: &B::Device) -> Self {
        let specs = config.tensors();
        let mut specs = Specs::new(&specs, max_shard_elements, device);
        Gpt2 {
            tok_emb: specs.row_sharded(),
            pos_emb: specs.matrix(),
            trf_blocks: (0..config.layers)
                .map(|layer| Block::lazy(&mut specs, config, layer))
                .collect(),
            final_norm: specs.norm(&config.variant),
            out_head: (!config.variant.is_tied).then(|| specs.row_sharded()),
        }
    }

    /// Logits `[batch, sequence, vocabulary]` for the token ids `[batch, sequence]`.
    pub fn forward(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let embedded = self.embed(tokens);
        let x = (0..self.layers()).fold(embedded, |x, layer| self.layer(layer, x));
        self.head(x)
    }

    /// How many layers there are.
    pub fn layers(&self) -> usize {
        self.trf_blocks.len()
    }

    /// The first step of [`Gpt2::forward`]: token ids `[batch, sequence]` → `[batch, sequence, width]`.
    pub fn embed(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let [batch, sequence] = tokens.dims();
        let positions = rows_of(&self.pos_emb);
        let width = positions.dims()[1];
        let positions = positions.narrow(0, 0, sequence).unsqueeze::<3>();
        let embedded = self.tok_emb.rows(tokens.reshape([batch * sequence]));
        embedded.reshape([batch, sequence, width]) + positions
    }

    /// One layer of [`Gpt2::forward`]: `[batch, sequence, width]` → the same. Uses that layer's parameters alone.
    pub fn layer(&self, layer: usize, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.trf_blocks[layer].forward(x)
    }

    /// The last step of [`Gpt2::forward`]: `[batch, sequence, width]` → logits.
    pub fn head(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, sequence, width] = x.dims();
        let x = self
            .final_norm
            .forward(x)
            .reshape([batch * sequence, width]);
        let head = self.out_head.as_ref().unwrap_or(&self.tok_emb);
        let logits = head.project(x);
        let vocabulary = logits.dims()[1];
        logits.reshape([batch, sequence, vocabulary])
    }

    /// Every tensor of the checkpoint with the parameters that hold it, in checkpoint order.
    ///
    /// Nothing is initialised by asking. `config` must be the one that the model was created with.
    ///
    /// # Panics
    ///
    /// If `config` lists other tensors than the model has.
    pub fn tensors_mut(&mut self, config: &Config) -> Vec<TensorMut<'_, B>> {
        let mut slots = Slots::default();
        slots.sharded(&mut self.tok_emb);
        slots.tensor(Slot::Matrix(&mut self.pos_emb));
        for block in &mut self.trf_blocks {
            block.slots(&mut slots);
        }
        slots.norm(&mut self.final_norm);
        if let Some(head) = &mut self.out_head {
            slots.sharded(head);
        }
        slots.join(config.tensors())
    }

    /// The tensors of one layer: see [`Gpt2::tensors_mut`].
    ///
    /// # Panics
    ///
    /// As [`Gpt2::tensors_mut`]; or if there is no such layer.
    pub fn layer_mut(&mut self, config: &Config, layer: usize) -> Vec<TensorMut<'_, B>> {
        let mut slots = Slots::default();
        self.trf_blocks[layer].slots(&mut slots);
        slots.join(config.layer_tensors(layer))
    }

    /// One layer, a module of its own: [`TensorSpec::layer_path`] tells its parameters' paths.
    ///
    /// # Panics
    ///
    /// If there is no such layer.
    pub fn block_mut(&mut self, layer: usize) -> &mut Block<B> {
        &mut self.trf_blocks[layer]
    }

    /// The tensors outside of the layers: see [`Gpt2::tensors_mut`].
    ///
    /// # Panics
    ///
    /// As [`Gpt2::tensors_mut`].
    pub fn outer_mut(&mut self, config: &Config) -> Vec<TensorMut<'_, B>> {
        let mut slots = Slots::default();
        slots.sharded(&mut self.tok_emb);
        slots.tensor(Slot::Matrix(&mut self.pos_emb));
        slots.norm(&mut self.final_norm);
        if let Some(head) = &mut self.out_head {
            slots.sharded(head);
        }
        slots.join(config.outer_tensors())
    }

    /// Initialises every parameter that is still lazy, with random weights as [`TensorSpec::initial`]
    /// says: what `GPTModel(config).to(device)` does in PyTorch. Calls `after` behind each parameter.
    pub fn materialise(&mut self, config: &Config, mut after: impl FnMut()) {
        for tensor in self.tensors_mut(config) {
            for shard in &tensor.shards {
                shard.initialise();
                after();
            }
        }
    }
}

impl<B: AutodiffBackend> Gpt2<B> {
    /// A loaded model, to be trained: on the backend with gradients, which every parameter gets. By `from_inner` alone none
    /// would: what is loaded on a backend without gradients has lost the setting (burn-core 0.21, `Param::initialized`).
    pub fn trainable(model: Gpt2<B::InnerBackend>) -> Self {
        struct Gradients;
        impl<B: Backend> ModuleMapper<B> for Gradients {
            fn map_float<const D: usize>(
                &mut self,
                param: Param<Tensor<B, D>>,
            ) -> Param<Tensor<B, D>> {
                param.set_require_grad(true)
            }
        }
        Gpt2::from_inner(model).map(&mut Gradients)
    }
}

"""GPT-2 with the tensor names of the book's variant: an untied head, and biases on query, key and value."""

import math
from pathlib import Path

import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self, embedding, heads, qkv_bias):
        super().__init__()
        self.heads = heads
        self.W_query = nn.Linear(embedding, embedding, bias=qkv_bias)
        self.W_key = nn.Linear(embedding, embedding, bias=qkv_bias)
        self.W_value = nn.Linear(embedding, embedding, bias=qkv_bias)
        self.out_proj = nn.Linear(embedding, embedding)

    def forward(self, x):
        batch, tokens, width = x.shape
        query, key, value = (
            projection(x).view(batch, tokens, self.heads, -1).transpose(1, 2)
            for projection in (self.W_query, self.W_key, self.W_value)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(width // self.heads)
        future = torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, -torch.inf).softmax(-1)
        return self.out_proj((weights @ value).transpose(1, 2).reshape(batch, tokens, width))


class FeedForward(nn.Module):
    def __init__(self, embedding):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(embedding, 4 * embedding),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * embedding, embedding),
        )

    def forward(self, x):
        return self.layers(x)


class Norm(nn.Module):
    def __init__(self, embedding):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(embedding))
        self.shift = nn.Parameter(torch.zeros(embedding))

    def forward(self, x):
        return nn.functional.layer_norm(x, x.shape[-1:], self.scale, self.shift, 1e-5)


class Block(nn.Module):
    def __init__(self, embedding, heads, qkv_bias):
        super().__init__()
        self.att = Attention(embedding, heads, qkv_bias)
        self.ff = FeedForward(embedding)
        self.norm1 = Norm(embedding)
        self.norm2 = Norm(embedding)

    def forward(self, x):
        x = x + self.att(self.norm1(x))
        return x + self.ff(self.norm2(x))


class Gpt2(nn.Module):
    def __init__(self, vocabulary, context, embedding, layers, heads, qkv_bias):
        super().__init__()
        self.tok_emb = nn.Embedding(vocabulary, embedding)
        self.pos_emb = nn.Embedding(context, embedding)
        self.trf_blocks = nn.ModuleList(Block(embedding, heads, qkv_bias) for _ in range(layers))
        self.final_norm = Norm(embedding)
        self.out_head = nn.Linear(embedding, vocabulary, bias=False)

    def forward(self, tokens):
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.tok_emb(tokens) + self.pos_emb(positions)
        for block in self.trf_blocks:
            x = block(x)
        return self.out_head(self.final_norm(x))


def per_tensor_files(folder):
    """The file of each tensor in a folder that has one for each."""
    return {path.name.removesuffix(".safetensors"): path for path in Path(folder).glob("*.safetensors")}

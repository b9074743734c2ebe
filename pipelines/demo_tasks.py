"""The two small problems of the demo: the data, and a model for each.

Modular addition is the problem on which grokking was found (Power et al., arXiv 2201.02177): a network first learns
the training pairs by heart and, under weight decay, much later the rule. Handwritten digits are the ordinary run
beside it, on which nothing of the kind happens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # ships no type information
from torch import nn
from torch.nn import functional

Task = Literal["modular addition", "digits"]

MODULUS = 47
TRAIN_SHARE = 0.5
EMBEDDING_STD = 0.125
"""Standard deviation of the embedding at the start. With PyTorch's own 1.0 the same network needs ten times as long."""


@dataclass(frozen=True)
class Split:
    """Inputs and labels: `inputs` of shape (n, features), `labels` of shape (n,)."""

    inputs: torch.Tensor
    labels: torch.Tensor


class Attention(nn.Module):
    """Causal self-attention as the last of two tokens sees it: (n, 2, width) to (n, 1, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """What the last token takes from both."""
        n, _, width = tokens.shape
        query, keys, values = (
            states.view(n, -1, self.heads, width // self.heads).transpose(1, 2)
            for states in (self.q_proj(tokens[:, -1:]), self.k_proj(tokens), self.v_proj(tokens))
        )
        mixed = functional.scaled_dot_product_attention(query, keys, values)
        taken: torch.Tensor = self.o_proj(mixed.transpose(1, 2).reshape(n, 1, width))
        return taken


class Layer(nn.Module):
    """One pre-norm transformer layer, read at the last token."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, 2, width) to (n, 1, width)."""
        last = tokens[:, -1:] + self.attention(self.attention_norm(tokens))
        out: torch.Tensor = last + self.mlp(self.mlp_norm(last))
        return out


class AdditionTransformer(nn.Module):
    """A one-layer transformer that reads a and b and tells (a + b) mod p: (n, 2) integers to (n, p) logits."""

    def __init__(self, modulus: int = MODULUS, width: int = 64, heads: int = 4, hidden: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(modulus, width)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        self.position_embedding = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.layers = nn.ModuleList([Layer(width, heads, hidden)])
        self.final_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, modulus)

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        """Logits of the sum."""
        tokens = self.embedding(pairs) + self.position_embedding
        for layer in self.layers:
            tokens = layer(tokens)
        logits: torch.Tensor = self.head(self.final_norm(tokens[:, -1]))
        return logits


def model_of(task: Task) -> nn.Module:
    """A freshly initialised model, drawn from torch's global random state."""
    if task == "modular addition":
        return AdditionTransformer()
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def data_of(task: Task, seed: int) -> tuple[Split, Split]:
    """Training and validation data, divided in halves by `seed`."""
    inputs, labels = _addition_table() if task == "modular addition" else _digits()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(inputs)))
    n_train = int(TRAIN_SHARE * len(inputs))
    train, validation = order[:n_train], order[n_train:]
    return Split(inputs[train], labels[train]), Split(inputs[validation], labels[validation])


def _addition_table() -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.arange(MODULUS)
    pairs = torch.cartesian_prod(numbers, numbers)
    return pairs, pairs.sum(dim=1) % MODULUS


def _digits() -> tuple[torch.Tensor, torch.Tensor]:
    digits = load_digits()
    return torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)

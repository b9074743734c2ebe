"""The networks: those of the demo, and a small causal transformer for sequences."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.replication.recipes import Task
from benchmarks.replication.tasks import ACTIONS, COMMAND_WORDS, DEPTH, MODULUS
from pipelines.demo_tasks import EMBEDDING_STD, AdditionTransformer, model_of


class CausalAttention(nn.Module):
    """Causal self-attention: (n, length, width) to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        n, length, width = states.shape
        query, keys, values = (
            of(states).view(n, length, self.heads, width // self.heads).transpose(1, 2)
            for of in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(query, keys, values, is_causal=True)
        taken: torch.Tensor = self.o_proj(mixed.transpose(1, 2).reshape(n, length, width))
        return taken


class CausalLayer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        states = states + self.attention(self.attention_norm(states))
        out: torch.Tensor = states + self.mlp(self.mlp_norm(states))
        return out


class SequenceTransformer(nn.Module):
    """Tells a label after each token: (n, length) integers to (n, length, labels) logits."""

    def __init__(self, tokens: int, labels: int, layers: int, width: int = 64, longest: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        self.position_embedding = nn.Parameter(torch.randn(longest, width) / width**0.5)
        self.layers = nn.ModuleList([CausalLayer(width, 4, 2 * width) for _ in range(layers)])
        self.final_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, labels)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states = self.embedding(tokens) + self.position_embedding[: tokens.shape[1]]
        for layer in self.layers:
            states = layer(states)
        logits: torch.Tensor = self.head(self.final_norm(states))
        return logits


def network(task: Task) -> nn.Module:
    """A freshly initialised network for `task`, drawn from torch's global random state."""
    if task == "digits":
        return model_of("digits")
    if task == "dyck":
        return SequenceTransformer(2, DEPTH + 1, layers=1)
    if task == "commands":
        return SequenceTransformer(len(COMMAND_WORDS) + len(ACTIONS), len(ACTIONS), layers=2)
    return AdditionTransformer(MODULUS)

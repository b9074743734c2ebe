"""Parameter groups: which tensors are followed together (theory 8).

Every tensor lies in exactly one *cell*, a pair of a category and a layer. The band is summed per cell; a group is a
set of cells, so bands of groups are sums of bands of cells, whatever the grouping.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

TOTAL: Final = "total"
CATEGORIES: Final = ("attention", "mlp", "embedding", "norm", "other")

# Tried in this order on each dotted part of a name: `attention_norm` is a norm, `self_attn.out_proj` is attention.
_PATTERNS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    ("norm", re.compile(r"norm|^ln(_?\w)?$|^ln_|_ln$|^bn\d*$")),
    ("embedding", re.compile(r"^emb|embed|^wte$|^wpe$|^pos$|^pos_|^tok_|position_emb")),
    (
        "attention",
        re.compile(r"attn|attention|^[qkvo]$|^w[qkvo]$|^(q|k|v|o|qkv)_proj$|^(query|key|value|qkv)$|^in_proj"),
    ),
    (
        "mlp",
        re.compile(r"mlp|ffn|feed_?forward|^f?fc?_?\d$|^linear\d$|^w[123]$|^(gate|up|down)_proj$|intermediate|expert"),
    ),
)
_LAYER: Final = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


class Cell(NamedTuple):
    """The finest unit of grouping: a category, and a layer such as `layer.3` (empty outside of any layer)."""

    category: str
    layer: str


def cells(names: Iterable[str]) -> dict[str, Cell]:
    """The cell of each tensor name.

    The layer is the first number among the dotted parts of a name. Where a model numbers layers under several
    prefixes (an encoder and a decoder), the prefix becomes part of the layer's name, so that they are not mixed.
    """
    names = list(names)
    prefixes = {_layer_prefix(name) for name in names} - {None}
    return {name: Cell(_category(name), _layer(name, qualify=len(prefixes) > 1)) for name in names}


def groups(of_cells: Iterable[Cell]) -> dict[str, frozenset[Cell]]:
    """Each group's cells: `total`, the categories that occur, and the layers, in that order."""
    present = sorted(set(of_cells), key=lambda cell: (CATEGORIES.index(cell.category), _numbers(cell.layer)))
    found: dict[str, frozenset[Cell]] = {TOTAL: frozenset(present)}
    for category in CATEGORIES:
        members = frozenset(cell for cell in present if cell.category == category)
        if members:
            found[category] = members
    for layer in sorted({cell.layer for cell in present if cell.layer}, key=_numbers):
        found[layer] = frozenset(cell for cell in present if cell.layer == layer)
    return found


def in_order(names: Iterable[str]) -> list[str]:
    """Names of groups in the order of :func:`groups`."""
    leading = (TOTAL, *CATEGORIES)
    return sorted(
        names, key=lambda name: (leading.index(name), ()) if name in leading else (len(leading), _numbers(name))
    )


def group_of_names(assigned: Mapping[str, Cell], group: str) -> list[str]:
    """The tensors of `group`, in the order of `assigned`."""
    members = groups(assigned.values())[group]
    return [name for name, cell in assigned.items() if cell in members]


def _category(name: str) -> str:
    parts = [part for part in name.lower().split(".") if part not in {"weight", "bias"}]
    # From the innermost part outwards: the closest name says most (`mlp.norm.weight` is a norm).
    for part in reversed(parts):
        for category, pattern in _PATTERNS:
            if pattern.search(part):
                return category
    return "other"


def _layer_prefix(name: str) -> str | None:
    match = _LAYER.search(name)
    return None if match is None else name[: match.start(1)].rstrip(".")


def _layer(name: str, *, qualify: bool) -> str:
    match = _LAYER.search(name)
    if match is None:
        return ""
    prefix = name[: match.start(1)].rstrip(".")
    return f"{prefix}.layer.{match.group(1)}" if qualify and prefix else f"layer.{int(match.group(1))}"


def _numbers(text: str) -> tuple[tuple[int, str | int], ...]:
    """Sort key that puts layer.10 after layer.9."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", text) if part)

"""What a tensor of a checkpoint is to the model (theory 8)."""

from __future__ import annotations

from typing import Final, Literal, get_args

Kind = Literal["parameters", "buffers", "averaged", "optimizer", "tied"]
"""What a tensor is to the model: a trained parameter; a buffer, such as running statistics of a normalisation layer;
part of an averaged copy of the model (EMA, SWA) or of the optimizer's state; or a parameter under a second name."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""All kinds."""

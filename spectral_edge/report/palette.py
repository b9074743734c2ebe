"""Colours of the charts: Okabe and Ito's colour-blind safe set, on light paper or as the page's own variables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

REGIMES: Final = ("plateau", "transition", "unstable", "forgetting", "undetermined")


@dataclass(frozen=True)
class Palette:
    """Colours by what they mean. `directions` are sigma_1 to sigma_3; `regimes` follow :data:`REGIMES`."""

    ink: str
    muted: str
    grid: str
    paper: str
    change: str
    gap: str
    further: str
    directions: tuple[str, str, str]
    regimes: tuple[str, ...]
    interactive: bool
    """Whether a pointer shows numbers; an image has no use for it."""


LIGHT: Final = Palette(
    ink="#1c2024",
    muted="#59616a",
    grid="#e1e5e8",
    paper="#ffffff",
    change="#a83d00",
    gap="#56b4e9",
    further="#b4bac0",
    directions=("#0072b2", "#d55e00", "#009e73"),
    regimes=("#56b4e9", "#e69f00", "#d55e00", "#cc79a7", "#c9ced3"),
    interactive=False,
)
"""Concrete colours, for images."""

NOTEBOOK: Final = replace(LIGHT, interactive=True)
"""The same where a pointer is: on its own light paper, so that it can be read in a dark notebook."""

PAGE: Final = Palette(
    ink="var(--ink)",
    muted="var(--muted)",
    grid="var(--grid)",
    paper="var(--paper)",
    change="var(--change)",
    gap="var(--gap)",
    further="var(--further)",
    directions=("var(--direction-1)", "var(--direction-2)", "var(--direction-3)"),
    regimes=tuple(f"var(--regime-{name})" for name in REGIMES),
    interactive=True,
)
"""Variables of page.css, so that one drawing serves light, dark and print."""

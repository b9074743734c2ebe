"""Pictures of the documentation: held against what the tests see, or written by them.

With SPECTRAL_EDGE_WRITE_IMAGES set, tests write docs/images; otherwise they compare. `make pictures` sets it.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image, ImageChops, ImageStat

IMAGES = Path(__file__).resolve().parents[1] / "docs/images"
WRITE = "SPECTRAL_EDGE_WRITE_IMAGES"
_SMALL = (48, 48)
_MOST = 6.0
"""Mean difference of grey levels (of 256) of the two pictures, made small: fonts and browsers differ by less."""


def check(name: str, png: bytes, *, gradients: bool = False) -> None:
    """Hold `png` against docs/images/`name`: of the same size, and alike at low resolution; or write it."""
    path = IMAGES / name
    if os.environ.get(WRITE):
        picture = Image.open(io.BytesIO(png)).convert("RGB")
        if not gradients:  # a palette makes the file a fifth; rare colours are kept
            picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
        picture.save(path, optimize=True)
        return
    committed, seen = Image.open(path), Image.open(io.BytesIO(png))
    assert committed.size == seen.size, f"docs/images/{name} is of another size: run `make pictures`"
    off = difference(committed, seen)
    assert off < _MOST, f"docs/images/{name} shows something else (off by {off:.1f}): run `make pictures`"


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of grey levels, 0 to 255, when both are made small."""
    small = [picture.convert("L").resize(_SMALL, Image.Resampling.BOX) for picture in (one, other)]
    return float(ImageStat.Stat(ImageChops.difference(*small)).mean[0])

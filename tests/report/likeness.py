"""Pictures of the page compared, so that a letter may look otherwise on another machine and a panel may not be missing.

A picture is brought to tiles of 16 by 16 pixels, and tiles to their mean colour: of a letter nothing is left but some
grey. A tile counts as another when its colour, and those of all tiles beside it in the other picture, are far from it.
"""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from browser import Browser
from PIL import Image, ImageChops

TILE: Final = 16
FAR: Final = 9.0
"""Difference of a tile's mean colour, of 255, in its most different channel."""
SHRUNK: Final = 2
"""Stored pictures have half the width and height, for a repository's sake."""

Tiles = npt.NDArray[np.float64]


def share_unlike(one: Image.Image, other: Image.Image) -> float:
    """The share of tiles that differ, between 0 and 1; both pictures have been shrunk."""
    size = max(one.width, other.width), max(one.height, other.height)
    tiles, others = (_tiles(picture, size) for picture in (one, other))
    return max(float(np.mean(_nearest(*pair) > FAR)) for pair in ((tiles, others), (others, tiles)))


def shrunk(picture: Image.Image) -> Image.Image:
    """As it is stored."""
    return picture.resize((picture.width // SHRUNK, picture.height // SHRUNK), Image.Resampling.BOX)


def _tiles(picture: Image.Image, size: tuple[int, int]) -> Tiles:
    paper = picture.getpixel((0, 0))
    whole = Image.new("RGB", size, paper)
    whole.paste(picture)
    across = TILE // SHRUNK
    small = whole.resize((max(size[0] // across, 1), max(size[1] // across, 1)), Image.Resampling.BOX)
    return np.asarray(small, dtype=float)


def _nearest(tiles: Tiles, others: Tiles) -> Tiles:
    """How far each of `tiles` is from the nearest of the nine others around its place."""
    rows, columns, _ = tiles.shape
    padded = np.pad(others, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = [padded[y : y + rows, x : x + columns] for y in range(3) for x in range(3)]
    return np.min([np.abs(tiles - one).max(axis=2) for one in around], axis=0)


@cache
def _letters() -> str:
    """DejaVu Sans, which comes with matplotlib and so is the same on every machine."""
    return base64.b64encode(Path(mpl.get_data_path(), "fonts/ttf/DejaVuSans.ttf").read_bytes()).decode()


LETTERS: Final = """
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
for (const family of ['Pictures', 'Liberation Sans']) document.fonts.add(new FontFace(family, bytes.buffer));
const style = new CSSStyleSheet();
style.replaceSync(`* { font-family: Pictures !important; ${arguments[1]} }`);
document.adoptedStyleSheets = [style];
"""

"""Pictures of the page compared, so that a letter may look otherwise on another machine and a panel may not be missing.

A picture is brought to tiles of 16 by 16 pixels, and tiles to their mean colour: of a letter nothing is left but some
grey. A tile is unlike when its colour is far from that of its place in the other picture, and of the eight around it.
"""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image

TILE: Final = 16
FAR: Final = 14.0
"""Difference of a tile's mean colour, of 255, in its most different channel."""
SHRUNK: Final = 2
"""Stored pictures have half the width and height, and few colours, for a repository's sake."""
_COLOURS: Final = 128

Tiles = npt.NDArray[np.float64]


def stored(picture: Image.Image) -> Image.Image:
    """As it is stored."""
    small = picture.resize((picture.width // SHRUNK, picture.height // SHRUNK), Image.Resampling.BOX)
    return small.quantize(_COLOURS, dither=Image.Dither.NONE)


def share_unlike(one: Image.Image, other: Image.Image) -> float:
    """The share of tiles that are unlike, from 0 to 1, in whichever of two stored pictures there are more."""
    size = max(one.width, other.width), max(one.height, other.height)
    tiles, others = (_tiles(picture.convert("RGB"), size) for picture in (one, other))
    return max(float(np.mean(_nearest(*pair) > FAR)) for pair in ((tiles, others), (others, tiles)))


def _tiles(picture: Image.Image, size: tuple[int, int]) -> Tiles:
    whole = Image.new("RGB", size, picture.getpixel((0, 0)))
    whole.paste(picture)
    across = TILE // SHRUNK
    small = whole.resize((size[0] // across, size[1] // across), Image.Resampling.BOX)
    return np.asarray(small, dtype=float)


def _nearest(tiles: Tiles, others: Tiles) -> Tiles:
    """How far each of `tiles` is from the nearest of the nine others around its place."""
    rows, columns, _ = tiles.shape
    padded = np.pad(others, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = [padded[y : y + rows, x : x + columns] for y in range(3) for x in range(3)]
    return np.min([np.abs(tiles - one).max(axis=2) for one in around], axis=0)


@cache
def letters() -> str:
    """DejaVu Sans, which comes with matplotlib and so is the same on every machine; in base64."""
    return base64.b64encode(Path(mpl.get_data_path(), "fonts/ttf/DejaVuSans.ttf").read_bytes()).decode()


WITH_LETTERS: Final = """
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
for (const family of ['Pictures', 'Liberation Sans']) document.fonts.add(new FontFace(family, bytes.buffer));
const style = new CSSStyleSheet();
style.replaceSync(`* { font-family: Pictures !important; ${arguments[1]} }`);
document.adoptedStyleSheets = [style];
"""
"""Shows a page in one font, of its bytes and further declarations; Vega measures texts in what it calls its own."""

"""Colours that stand for something can be told apart by everyone, in light and in dark, and against the paper."""

from __future__ import annotations

import itertools
import re
from importlib.resources import files

import numpy as np
import numpy.typing as npt
import pytest

from spectral_edge.report.palette import LIGHT, REGIMES

APART = 15.0
"""Least distance in CIELAB; 2.3 is just noticeable side by side."""

# Machado, Oliveira and Fernandes 2009 (IEEE TVCG 15, 1291), severity 1: what dichromats see, in linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour: str) -> npt.NDArray[np.float64]:
    """A colour such as #0072b2 as linear RGB."""
    coded = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def lab(colour: str, sight: str) -> npt.NDArray[np.float64]:
    """CIELAB of what someone with that sight sees."""
    seen = np.clip(SIGHT[sight] @ linear(colour), 0, 1)
    x, y, z = np.cbrt(np.maximum(TO_XYZ @ seen / TO_XYZ.sum(axis=1), 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    darker, lighter = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def schemes() -> dict[str, dict[str, str]]:
    """The colours of page.css by name; those of the dark scheme stand over the light ones."""
    text = files("spectral_edge.report").joinpath("page.css").read_text()
    light, dark = (dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", part)) for part in _roots(text))
    return {"light": light, "dark": light | dark}


def _roots(text: str) -> list[str]:
    return re.findall(r":root \{(.*?)\}", text, flags=re.DOTALL)[:2]


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_regimes_and_directions_can_be_told_apart(scheme: str, sight: str) -> None:
    colours = schemes()[scheme]
    regimes = [f"regime-{name}" for name in REGIMES]
    directions = ["direction-1", "direction-2", "direction-3", "further"]
    for names in (regimes, directions):
        for one, other in itertools.combinations(names, 2):
            distance = float(np.linalg.norm(lab(colours[one], sight) - lab(colours[other], sight)))
            assert distance >= APART, (one, other, distance)


def test_red_and_green_of_one_lightness_would_not_do() -> None:
    """The measure speaks: what is far apart for most is near for those who see no red."""
    far, near = (float(np.linalg.norm(lab("#c00000", one) - lab("#606000", one))) for one in ("usual", "protanopia"))
    assert near < APART < far


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_stand_out_from_the_paper(scheme: str) -> None:
    colours = schemes()[scheme]
    for name in ("ink", "muted", "change", "link", "direction-1", "direction-2", "direction-3"):
        assert contrast(colours[name], colours["paper"]) >= 3, name


def test_pictures_have_the_colours_of_the_light_page() -> None:
    light = schemes()["light"]
    assert LIGHT.directions == tuple(light[f"direction-{number}"] for number in (1, 2, 3))
    assert LIGHT.regimes == tuple(light[f"regime-{name}"] for name in REGIMES)
    names = ("ink", "muted", "grid", "paper", "change", "gap", "further")
    assert {name: getattr(LIGHT, name) for name in names} == {name: light[name] for name in names}

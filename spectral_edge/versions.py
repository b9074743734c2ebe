"""The versions that made the numbers, for table `runs` and for `doctor`."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import Final

_LIBRARIES: Final = ("spectral-edge", "numpy", "scipy", "torch", "pyarrow", "deltalake")


def versions() -> dict[str, str]:
    """Version of Python, of spectral-edge, and of the libraries that numbers go through."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}


def versions_json() -> str:
    """The same as JSON with sorted keys."""
    return json.dumps(versions(), sort_keys=True)

"""Writes constraints.txt: the versions that a fresh environment of this project resolves to today.

Run by `make constraints`. A line of the old file that carries a reason (`name==version  # reason`) is held back on
purpose: the new resolution is made under it, and it is kept as it is. All other pins are replaced.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "constraints.txt"
HEADER = """\
# Versions that are known to work together: `pip install -c constraints.txt spectral-edge`.
# Made by `make constraints` on Python {python}: a fresh environment of pyproject.toml and its group dev, frozen.
# A line with a reason is held back on purpose and survives the next `make constraints`.
"""


def held_back(constraints: str) -> dict[str, str]:
    """The lines of `constraints` that carry a reason, by package name."""
    lines = (line for line in constraints.splitlines() if re.match(r"[\w.-]+==\S+\s+#", line))
    return {line.split("==")[0]: line for line in lines}


def without_local_versions(frozen: str) -> dict[str, str]:
    """The pins of `pip freeze` by package name; `+cpu` and the like are dropped, as other indexes lack them."""
    pins = (re.match(r"([\w.-]+)==([^+\s]+)", line) for line in frozen.splitlines())
    return {pin.group(1): pin.group(0) for pin in pins if pin}


def resolve(held: dict[str, str]) -> str:
    """What `pip freeze` says of a fresh environment of this project."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        under = Path(folder, "held.txt")
        under.write_text("\n".join(held.values()))
        pip = [f"{folder}/bin/python", "-m", "pip"]
        _run([*pip, "install", "-c", str(under), "--upgrade", "pip"])
        _run([*pip, "install", "-c", str(under), "-e", ".", "--group", "dev"])
        return _run([*pip, "freeze", "--exclude-editable"])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - fixed words
    return done.stdout


def main() -> None:
    """Resolve and write."""
    held = held_back(TARGET.read_text())
    pins = without_local_versions(resolve(held)) | held
    header = HEADER.format(python=f"{sys.version_info.major}.{sys.version_info.minor}")
    TARGET.write_text(header + "".join(f"{pins[name]}\n" for name in sorted(pins, key=str.lower)))


if __name__ == "__main__":
    main()

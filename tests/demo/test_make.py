"""What surrounds the program: the Makefile, the constraints, and what CI runs."""

import os
import re
import runpy
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


def make(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_make_alone_lists_what_it_can_do() -> None:
    listed = re.findall(r"^make (\S+) +\S", make(), flags=re.MULTILINE)
    described = re.findall(r"^(\S+):.*##", MAKEFILE, flags=re.MULTILINE)
    assert listed == described
    assert {"demo", "test", "lint", "bench", "clean"} <= set(listed)


def test_make_test_lints_and_then_tests() -> None:
    steps = make("--dry-run", "test")
    order = [steps.index(word) for word in ("ruff check", "mypy", "lint-imports", "-m pytest")]
    assert order == sorted(order)


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make test"


def pins() -> dict[str, Version]:
    lines = (line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    named = (line.split("==") for line in lines if line)
    return {canonicalize_name(name): Version(version) for name, version in named}


def requirements() -> Iterator[Requirement]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = content["project"]
    for group in (
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *content["dependency-groups"].values(),
    ):
        yield from map(Requirement, group)


def test_every_dependency_is_pinned_within_its_range() -> None:
    pinned = pins()
    for requirement in requirements():
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} does not allow the pinned {version}"
        assert version.local is None


def test_pins_held_on_purpose_survive_a_new_resolution() -> None:
    script = runpy.run_path(str(ROOT / "tools" / "constraints.py"))
    held = script["held_back"]("# Header.\nfastapi==0.150.0  # newer ones break\nnumpy==2.4.6\n")
    assert held == {"fastapi": "fastapi==0.150.0  # newer ones break"}
    frozen = script["without_local_versions"]("numpy==2.4.6\ntorch==2.13.0+cpu\n-e /somewhere\nx @ file:///x.whl\n")
    assert frozen == {"numpy": "numpy==2.4.6", "torch": "torch==2.13.0"}

"""The limit of open files, in processes of their own that begin with a low one."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, tempfile
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from spectral_edge.open_files import allow_open_files
allowed = allow_open_files(wanted)
with tempfile.NamedTemporaryFile() as file:
    held = [open(file.name, "rb") for _ in range(allowed)]
print(allowed, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "allowed", "limit"),
    [
        (1024, 10_000, 100, 100, 1024),
        (1024, 10_000, 2000, 2000, 2256),
        (1024, 1500, 2000, 1244, 1500),
        (300, 300, 2000, 44, 300),
    ],
)
def test_as_many_as_are_wanted_or_the_hard_limit_allows(
    soft: int, hard: int, wanted: int, allowed: int, limit: int
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(soft), str(hard), str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(allowed), str(limit)]

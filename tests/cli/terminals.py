"""The real command on a real terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

LONG = "this run was stopped by the scheduler of the cluster in the middle of the night, see the log of the job"
"""The error of a run."""
COMMAND = str(Path(sys.executable).with_name("spectral-edge"))
_OURS = ("SPECTRAL_EDGE_", "PREFECT_", "MLFLOW_", "WANDB_", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "COLUMNS", "LINES")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environment(**more: str) -> dict[str, str]:
    """Of a user without settings; for `more` see the test."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return clean | {"TERM": "xterm-256color"} | more


@dataclass(frozen=True)
class Screen:
    """What a terminal showed: of stdout and stderr together, as a person sees them."""

    code: int
    raw: str

    @property
    def text(self) -> str:
        """Without escapes."""
        return _ESCAPE.sub("", self.raw).replace("\r", "")

    @property
    def widest(self) -> int:
        """Columns of its longest line."""
        return max(map(len, self.text.splitlines()), default=0)

    @property
    def has_colours(self) -> bool:
        """Whether anything is coloured; bold alone is no colour."""
        return bool(re.search(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9]+)*m", self.raw))


@dataclass(frozen=True)
class Terminal:
    """A terminal of `columns`, in the folder `folder`."""

    folder: Path
    columns: int
    more: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, answer: str = "") -> Screen:
        """Run the command to its end; `answer` is typed before it asks."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, self.columns, 0, 0))
        with subprocess.Popen(
            [COMMAND, *arguments],
            cwd=self.folder,
            env=environment(**self.more),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            os.write(ours, answer.encode())
            shown = b""
            with suppress(OSError):  # EIO: the other side is closed
                while chunk := os.read(ours, 65_536):
                    shown += chunk
            os.close(ours)
        return Screen(process.returncode, shown.decode())


def piped(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command with stdout and stderr in pipes and nothing on stdin."""
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


class Said(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


Typed = Callable[..., Said]
"""Runs a command in a folder, in this process."""

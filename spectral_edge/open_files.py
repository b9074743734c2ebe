"""How many files this process may hold open: the pass reads all checkpoints side by side, each with all its shards."""

from __future__ import annotations

import sys
from typing import Final

RESERVED: Final = 256
"""Left to everything else: sockets of trackers and of Prefect, libraries, the store."""

_MACOS_MOST: Final = 10_240
"""What the kernel of macOS grants a process, whatever its hard limit says."""

_WINDOWS_MOST: Final = 8_192
"""The C runtime's most; there is no limit of the process to raise."""


def allow_open_files(wanted: int) -> int:
    """Raise this process's limit of open files as far as `wanted` files need it and the system allows it.

    The usual limit is 1,024, which a process may raise by itself up to a hard limit of often a million; it is that low
    for programs that use `select`. Of 80 checkpoints of 24 files each, it lets only half be open at once.

    Returns:
        How many files may be open for reading checkpoints, at least 1; less than `wanted` where the system says so.
    """
    if sys.platform == "win32":
        return min(wanted, _WINDOWS_MOST - RESERVED)
    import resource  # noqa: PLC0415 - Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited:
        return wanted
    most = wanted + RESERVED if hard == unlimited else min(wanted + RESERVED, hard)
    if sys.platform == "darwin":
        most = min(most, _MACOS_MOST)
    if most > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return max(1, min(wanted, soft - RESERVED))

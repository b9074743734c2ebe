"""What a pickle would ask for, told without running it.

`torch.load(weights_only=True)` refuses foreign code, but on its way still calls what it allows, and some of that can be
made to fill the memory (`bytearray(10**11)`). So each pickle is first walked opcode by opcode and held to the shorter
list of what plain tensors need.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from spectral_edge.errors import CheckpointFormatError, UnsafeCheckpointError

_ALLOWED: Final = re.compile(
    r"""collections\.(OrderedDict|Counter)
    |(builtins|__builtin__)\.(set|complex)
    |torch\.(Size|device|Tensor|\w+Storage)
    |torch\.storage\.(Untyped|Typed)Storage
    |torch\.((q?u?int|b?float|complex)\d+\w*|bool)
    |torch\.nn\.parameter\.Parameter
    |torch\.serialization\._get_layout
    |torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state|sparse_tensor)
    |torch\._tensor\._rebuild_from_type_v2""",
    re.VERBOSE,
)

_MOST_STORAGES: Final = 50_000
"""Most tensors in one torch file. torch needs 0.2 ms for each; no model comes near, a hostile file may."""

_PROTOCOL: Final = 2
"""The pickle protocol that torch.save writes, and the only one its safe loader knows."""

_TEXT: Final = frozenset({"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"})
_PUT: Final = frozenset({"BINPUT", "LONG_BINPUT", "PUT"})
_GET: Final = frozenset({"BINGET", "LONG_BINGET", "GET"})


@dataclass
class PickleContents:
    """What a pickle names: `globals`, in order, and the key of each storage it refers to, in order, with repeats."""

    globals: list[str] = field(default_factory=list)
    storage_keys: list[str] = field(default_factory=list)
    protocols: set[int] = field(default_factory=set)


def scan(pickled: bytes, count: int, file: str) -> PickleContents:
    """Walk the first `count` pickles in `pickled` and check what they ask for. Nothing is executed.

    Args:
        pickled: The bytes; what follows the last pickle is not looked at.
        count: Number of pickles, one after the other.
        file: What messages call the file.

    Raises:
        UnsafeCheckpointError: A pickle asks for a class or function that plain tensors do not need.
        CheckpointFormatError: Not a pickle, cut short, or with too many tensors.
    """
    contents, stream, damage = PickleContents(), io.BytesIO(pickled), ""
    try:
        for _ in range(count):
            _walk(stream, contents)
    except ValueError as error:
        damage = str(error)
    foreign = [name for name in dict.fromkeys(contents.globals) if not _ALLOWED.fullmatch(name)]
    if foreign:
        raise UnsafeCheckpointError(
            f"the file asks for {_listed(foreign)}, and plain tensors need nothing of the kind. Nothing was executed.",
            file=file,
            next_step="save the weights alone, `torch.save(model.state_dict(), ...)`, or use safetensors.",
        )
    if damage:
        raise CheckpointFormatError(f"its pickle cannot be used: {damage}.", file=file)
    if contents.protocols - {_PROTOCOL}:
        raise CheckpointFormatError(
            f"got pickle protocol {max(contents.protocols)}, expected {_PROTOCOL}, the default of `torch.save`.",
            file=file,
        )
    return contents


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"`{ascii(name)[1:-1][:100]}`" for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _walk(stream: io.BytesIO, contents: PickleContents) -> None:
    """Add one pickle's globals and storage keys to `contents`."""
    strings = _Strings()
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in {"GLOBAL", "INST"}:
            contents.globals.append(str(argument).replace(" ", "."))
        elif name == "STACK_GLOBAL":
            contents.globals.append(".".join(strings.recent))
        elif name.startswith("EXT"):
            contents.globals.append(f"copyreg extension {argument}")
        elif name == "BINPERSID":
            contents.storage_keys.append(strings.recent[0])  # ("storage", type, key, location, size)
            if len(contents.storage_keys) > _MOST_STORAGES:
                raise ValueError(f"more than {_MOST_STORAGES} tensors, the most that is read from a torch file")
        elif name == "PROTO":
            contents.protocols.add(int(str(argument)))
        strings.follow(name, argument)


class _Strings:
    """The last two strings pushed, through the memo too: a name may be written once and recalled later."""

    def __init__(self) -> None:
        self.recent: deque[str] = deque(["", ""], maxlen=2)
        self._memo: dict[int, str | None] = {}
        self._top: str | None = None

    def follow(self, opcode: str, argument: object) -> None:
        if opcode in _TEXT:
            self._push(str(argument))
        elif opcode in _GET:
            self._push(self._memo.get(int(str(argument))))
        elif opcode in _PUT:
            self._memo[int(str(argument))] = self._top
        elif opcode == "MEMOIZE":
            self._memo[len(self._memo)] = self._top
        elif opcode != "FRAME":
            self._top = None

    def _push(self, text: str | None) -> None:
        self._top = text
        if text is not None:
            self.recent.append(text)

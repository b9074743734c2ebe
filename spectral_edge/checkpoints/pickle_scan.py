"""What a pickle would ask for, told without running it.

`torch.load(weights_only=True)` refuses foreign code, but on its way still calls what it allows, and some of that can be
made to fill the memory (`bytearray(10**11)`). So each pickle is first walked opcode by opcode, following what lies on
its stack, and held to the shorter list of what plain tensors need.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from spectral_edge.errors import CheckpointFormatError, UnsafeCheckpointError

_REBUILD: Final = re.compile(
    r"torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state|sparse_tensor)"
)
_CONTAINER: Final = re.compile(r"collections\.(OrderedDict|Counter)|(builtins|__builtin__)\.(set|complex)|torch\.Size")
_OTHER_CALLED: Final = re.compile(r"torch\.(device|serialization\._get_layout|nn\.parameter\.Parameter)")
_TYPED: Final = "torch._tensor._rebuild_from_type_v2"
_NAMED: Final = re.compile(r"torch\.(Tensor|(storage\.)?\w+Storage|(q?u?int|b?float|complex)\d+\w*|bool)")

_MOST_STORAGES: Final = 50_000
"""Most tensors in one torch file. torch needs 0.2 ms for each; no model comes near, a hostile file may."""

_MOST_OPCODES: Final = 2_500_000
"""Most opcodes: a tensor takes about 32."""

_PROTOCOL: Final = 2
"""The pickle protocol that torch.save writes, and the only one its safe loader knows."""

_TEXT: Final = frozenset({"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"})
_PUT: Final = frozenset({"BINPUT", "LONG_BINPUT", "PUT"})
_GET: Final = frozenset({"BINGET", "LONG_BINGET", "GET"})
_NAMING: Final = frozenset({"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"})
_TUPLE: Final = frozenset({"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
_MADE: Final = object()
_CALLING: Final = frozenset({"REDUCE", "NEWOBJ", "NEWOBJ_EX"})


@dataclass
class PickleContents:
    """What a pickle asks for: what is refused, and the key of each storage it refers to, in order, with repeats."""

    refused: list[str] = field(default_factory=list)
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
    if contents.refused:
        raise UnsafeCheckpointError(
            f"the file asks for {_listed(contents.refused)}, which plain tensors do not need. Nothing was executed.",
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


def _listed(repeated: Iterable[str]) -> str:
    names = list(dict.fromkeys(repeated))
    shown = ", ".join(f"`{ascii(name)[1:-1][:100]}`" for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _walk(stream: io.BytesIO, contents: PickleContents) -> None:
    """Add to `contents` what one pickle names.

    Raises:
        ValueError: Not a pickle, or a longer one than is looked at.
    """
    stack = _Stack(contents)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= _MOST_OPCODES:
                raise ValueError(f"more than {_MOST_OPCODES} opcodes, the most that is read from a torch file")
            stack.follow(opcode, argument)
    except DeprecationWarning as warning:  # raised where warnings are errors: a text with an escape that Python has not
        raise ValueError(str(warning)) from warning


def _may_name(name: str) -> bool:
    patterns = (_REBUILD, _CONTAINER, _OTHER_CALLED, _NAMED)
    return name == _TYPED or any(pattern.fullmatch(name) for pattern in patterns)


def _objection(function: object, arguments: object) -> str | None:
    """Why a call is refused, if it is: tensors may be rebuilt, but no other call may go through their entries."""
    if not isinstance(function, _Global):
        return "a call of something that has no name"
    if not isinstance(arguments, tuple):
        return f"{function} of unknown arguments"
    if function == _TYPED:
        rebuild = arguments[0] if arguments else None
        return None if isinstance(rebuild, _Global) and _REBUILD.fullmatch(rebuild) else f"{function} of {rebuild}"
    if _CONTAINER.fullmatch(function):
        return f"{function} of a tensor's entries" if _MADE in arguments else None
    return f"a call of {function}" if _NAMED.fullmatch(function) else None  # other names were refused as such


class _Global(str):
    """A class or function on the stack, by its full name."""

    __slots__ = ()


class _Stack:
    """The stack of the machine that a pickle is a program of, as far as names matter.

    On it lie strings, globals, tuples of these, `_MADE` for storages and the results of calls, and None for all else.
    Nothing is called.
    """

    def __init__(self, contents: PickleContents) -> None:
        self._contents = contents
        self._items: list[object] = []
        self._below: list[list[object]] = []  # what lies below each mark
        self._memo: dict[object, object] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Do to the stack what `opcode` does."""
        name = opcode.name
        if name == "MARK":
            self._below.append(self._items)
            self._items = []
        elif name in _GET:
            self._items.append(self._memo.get(argument))
        elif name in _PUT or name == "MEMOIZE":
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._items[-1] if self._items else None
        else:
            taken = self._take(opcode.stack_before)
            self._note(name, argument, taken)
            self._items += [_pushed(name, argument, taken)] * len(opcode.stack_after)

    def _take(self, before: Sequence[pickletools.StackObject]) -> list[object]:
        """Take off what an opcode takes: a number of things, or those above the mark and some below."""
        above: list[object] = []
        if pickletools.markobject in before:
            if not self._below:
                raise ValueError("a mark is missing on its stack")
            above, self._items = self._items, self._below.pop()
            before = before[: before.index(pickletools.markobject)]
        if len(before) > len(self._items):
            raise ValueError("its stack is empty too early")
        cut = len(self._items) - len(before)
        taken, self._items = self._items[cut:], self._items[:cut]
        return taken + above

    def _note(self, name: str, argument: object, taken: list[object]) -> None:
        """Write down what the opcode asks for."""
        contents = self._contents
        if name == "PROTO" and isinstance(argument, int):
            contents.protocols.add(argument)
        elif name in _NAMING and not _may_name(_named(name, argument, taken)):
            contents.refused.append(_named(name, argument, taken))
        elif name in _CALLING and (objection := _objection(*taken[:2])):
            contents.refused.append(objection)
        elif name == "BINPERSID":
            match taken[0]:
                case ("storage", _, str(key), *_):
                    contents.storage_keys.append(key)
            if len(contents.storage_keys) > _MOST_STORAGES:
                raise ValueError(f"more than {_MOST_STORAGES} tensors, the most that is read from a torch file")


def _pushed(name: str, argument: object, taken: list[object]) -> object:
    if name in _TEXT:
        return argument
    if name in _TUPLE:
        return tuple(taken)
    if name in _CALLING or name == "BINPERSID":
        return _MADE
    return _Global(_named(name, argument, taken)) if name in {"GLOBAL", "STACK_GLOBAL"} else None


def _named(name: str, argument: object, taken: list[object]) -> str:
    if name == "STACK_GLOBAL":
        return ".".join(map(str, taken))
    return str(argument).replace(" ", ".") if name in {"GLOBAL", "INST"} else f"extension {argument} of copyreg"

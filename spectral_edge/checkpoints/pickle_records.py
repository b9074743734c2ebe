"""What pickles are read as: plain values, and a record for everything else.

A hostile pickle is bounded in what it may build from parts that it names again and again. Keys of dictionaries and
entries of sets are hashed only when that takes no time and cannot be made to collide; others stand in a record, which
is hashed by its address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from spectral_edge.checkpoints.unsafe_names import is_unsafe

PERSISTENT: Final = "persistent id"
"""Name of the records for what a pickle refers to outside of itself; the id is the only argument."""

_RESULT: Final = "call of a result"
_KEY: Final = "key"

_LONGEST_NAME: Final = 1000
_NAME_COSTS: Final = 100
_SET_COSTS: Final = 200

_MOST_NUMBER_KEYS: Final = 10_000
"""Most keys that are numbers or tuples: unlike texts they can be chosen to collide, which takes time by the square."""

_KEY_ENTRIES: Final = 32
_KEY_BITS: Final = 64

_NO_ENTRIES: Final[Mapping[object, object]] = MappingProxyType({})


class Made:
    """What a pickle would make with a class or function, or refer to, as a record.

    Attributes:
        name: Full dotted name of the class or function; :data:`PERSISTENT` for a reference out of the pickle.
        called: Whether it is what comes of a call; False for the class or function itself.
        arguments: Those of the call, the ones by keyword as a dictionary at the end.
        state: What the object's attributes would be set from: a dictionary of them, a pair of these (the second for
            slots), or whatever its class understands; None without.
        appended: What would be appended to it.
        entries: What would be set in it by key.
    """

    __slots__ = ("appended", "arguments", "called", "entries", "name", "state")

    def __init__(self, name: str, arguments: tuple[object, ...] = (), *, called: bool = True) -> None:
        self.name = name
        self.called = called
        self.arguments = arguments
        self.state: object = None
        self.appended: Sequence[object] = ()
        self.entries: Mapping[object, object] = _NO_ENTRIES

    def __repr__(self) -> str:
        return f"<{self.name}>"  # not what it is made of, which may contain itself


class Maker:
    """Makes values and records for the pickles of one file; all methods raise ValueError when these go out of bounds.

    `unsafe` gathers the names asked for that serve to run code, each once.

    Args:
        size: Bytes of the pickles.
    """

    def __init__(self, size: int) -> None:
        self.unsafe: dict[str, None] = {}
        self._room = 4 * size + 2**20
        self._number_keys = 0

    def named(self, name: str) -> Made:
        """The class or function of this full name."""
        if len(name) > _LONGEST_NAME:
            raise ValueError(f"a name of {len(name)} letters")
        self.spend(_NAME_COSTS + len(name))
        if is_unsafe(name):
            self.unsafe[name] = None
        return Made(name, called=False)

    def member(self, module: object, name: object) -> Made:
        """The class or function `name` of `module`."""
        if not (isinstance(module, str) and isinstance(name, str) and len(module) + len(name) < _LONGEST_NAME):
            raise ValueError("it asks for something whose name is no text, or a long one")
        return self.named(f"{module}.{name}")

    def called(self, function: object, arguments: object) -> object:
        """What comes of calling `function`, or of making an object of a class: a plain value or a record."""
        if isinstance(function, Made) and function.called:
            function = _class_of_source(function)
        if not isinstance(function, Made) or function.called or not isinstance(arguments, tuple):
            return Made(_RESULT, (function, arguments))
        made = _PLAIN[function.name](self, arguments) if function.name in _PLAIN else None
        return Made(function.name, arguments) if made is None else made

    def called_with_keywords(self, function: object, arguments: object, keywords: object) -> object:
        """As `called`, with a dictionary of arguments by keyword."""
        if not isinstance(function, Made) or function.called or not isinstance(arguments, tuple):
            return Made(_RESULT, (function, arguments, keywords))
        self.spend(len(arguments))
        return Made(function.name, (*arguments, keywords))

    def key(self, value: object) -> object:
        """`value` as it may stand as a dictionary's key or in a set."""
        if value is None or isinstance(value, Made) or (isinstance(value, str) and len(value) <= _LONGEST_NAME):
            return value
        if self._number_keys < _MOST_NUMBER_KEYS and _is_short(value):
            self._number_keys += 1
            return value
        return Made(_KEY, (value,))

    def set_of(self, values: Sequence[object]) -> set[object]:
        """A set with these entries."""
        self.spend(_SET_COSTS + len(values))
        return set(map(self.key, values))

    def spend(self, count: int) -> None:
        """Take from what may be built out of parts that are named again and again."""
        self._room -= count
        if self._room < 0:
            raise ValueError("it makes more of its parts than any checkpoint does")

    def dictionary(self, entries: list[object] | dict[object, object]) -> dict[object, object] | None:
        """A dictionary with these entries; None where they are no pairs."""
        self.spend(len(entries))
        if isinstance(entries, dict):
            return dict(entries)
        pairs = [pair for pair in entries if isinstance(pair, (list, tuple)) and len(pair) == 2]
        return {self.key(key): value for key, value in pairs} if len(pairs) == len(entries) else None


def _class_of_source(function: Made) -> Made:
    """`function`, or the class that torch's old format kept with its source code beside it."""
    match function:
        case Made(name=name, arguments=(("module", Made(called=False) as kind, *_),)) if name == PERSISTENT:
            return kind
    return function


def _is_short(value: object) -> bool:
    """Whether `value` is hashed and compared in no time: a short text or number, or a tuple of a few of these."""
    pending, seen = [value], 0
    while pending:
        match pending.pop():
            case bool() | float() | complex() | None | Made():
                continue
            case int(number) if number.bit_length() <= _KEY_BITS:
                continue
            case (str() | bytes()) as text if len(text) <= _LONGEST_NAME:
                continue
            case tuple(entries) if (seen := seen + 1 + len(entries)) <= _KEY_ENTRIES:
                pending.extend(entries)
            case _:
                return False
    return True


_Arguments = tuple[object, ...]


def _dict(maker: Maker, arguments: _Arguments) -> object:
    match arguments:
        case ():
            return {}
        case (list() | dict() as entries,):
            return maker.dictionary(entries)
    return None


def _default_dict(maker: Maker, arguments: _Arguments) -> object:
    return _dict(maker, arguments[1:])  # the first makes values for keys that are not there


def _set(maker: Maker, arguments: _Arguments) -> object:
    match arguments:
        case (list() | tuple() as entries,):
            return maker.set_of(entries)
    return maker.set_of(()) if not arguments else None


def _frozen_set(maker: Maker, arguments: _Arguments) -> object:
    entries = _set(maker, arguments)
    return frozenset(entries) if isinstance(entries, set) else None


def _complex(_: Maker, arguments: _Arguments) -> object:
    match arguments:
        case (float(real), float(imaginary)):
            return complex(real, imaginary)
    return None


def _encode(maker: Maker, arguments: _Arguments) -> object:
    """How Python 3 writes bytes for Python 2."""
    match arguments:
        case (str(text), "latin1"):
            maker.spend(len(text))
            return text.encode("latin-1")
    return None


def _bytes(_: Maker, arguments: _Arguments) -> object:
    return None if arguments else b""


def _byte_array(maker: Maker, arguments: _Arguments) -> object:
    match arguments:
        case ():
            return bytearray()
        case (bytes(content),):
            maker.spend(len(content))
            return bytearray(content)
        case (str(text), "latin-1"):
            maker.spend(len(text))
            return bytearray(text, "latin-1")
    return None


def _get_attribute(maker: Maker, arguments: _Arguments) -> object:
    match arguments:
        case (Made(called=False) as owner, str(member)):
            return maker.member(owner.name, member)
    return None


def _reconstruct(_: Maker, arguments: _Arguments) -> object:
    """How protocols 0 and 1 make objects."""
    match arguments:
        case (Made(called=False) as kind, _, _):
            return Made(kind.name)
    return None


def _new(maker: Maker, arguments: _Arguments) -> object:
    """How they make objects of classes that need arguments."""
    match arguments:
        case (Made(called=False) as kind, *rest):
            maker.spend(len(rest))
            return Made(kind.name, tuple(rest))
    return None


_PLAIN: Final[Mapping[str, Callable[[Maker, _Arguments], object]]] = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": _default_dict,
    "_codecs.encode": _encode,
    "copy_reg._reconstructor": _reconstruct,
    "copyreg._reconstructor": _reconstruct,
    "copy_reg.__newobj__": _new,
    "copyreg.__newobj__": _new,
    **{
        f"{module}.{name}": make
        for module in ("builtins", "__builtin__")
        for name, make in {
            "dict": _dict,
            "set": _set,
            "frozenset": _frozen_set,
            "complex": _complex,
            "bytes": _bytes,
            "bytearray": _byte_array,
            "getattr": _get_attribute,
        }.items()
    },
}
"""What is made of a call of these functions; None leaves it a record."""

"""The stack machine that pickles are programs of; pickletools tells how the arguments of its opcodes are encoded."""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from spectral_edge.checkpoints.pickle_records import PERSISTENT, Made, Maker

_MOST_OPCODES: Final = 2_500_000
"""Most opcodes of a file's pickles: a tensor takes about 32. They take some two seconds."""

_LAST_PROTOCOL: Final = 5

_MISSING: Final = object()


class PickleMachine:
    """Runs the pickles in `pickled`, one behind the other, without doing what they ask for.

    `references` gathers the records of what they refer to outside of themselves, in order, with repeats.

    Its methods raise ValueError, LookupError, OverflowError or DeprecationWarning where a pickle is damaged or out of
    bounds.
    """

    def __init__(self, pickled: bytes) -> None:
        self._stream = io.BytesIO(pickled)
        self._maker = Maker(len(pickled))
        self._opcodes_left = _MOST_OPCODES
        self._items: list[Any] = []
        self._below: list[list[Any]] = []  # what lies below each mark
        self._memo: list[object] = []
        self.references: list[Made] = []

    @property
    def position(self) -> int:
        """Where the last pickle ended."""
        return self._stream.tell()

    @property
    def unsafe(self) -> list[str]:
        """The names asked for that serve to run code."""
        return list(self._maker.unsafe)

    def run(self) -> object:
        """The value of the next pickle."""
        self._items, self._below, self._memo = [], [], []
        stream, steps, allowed = self._stream, self._STEPS, self._opcodes_left
        for count in range(allowed):
            code = stream.read(1)
            step = steps.get(code)
            if step is not None:
                read_argument, act = step
                act(self, None if read_argument is None else read_argument(stream))
            elif code == b".":
                self._opcodes_left = allowed - count
                return self._items.pop()
            else:
                raise ValueError(f"there is no opcode {code!r}" if code else "it is cut short")
        raise ValueError(f"more than {_MOST_OPCODES} opcodes, the most that is read")

    def _push(self, value: object) -> None:
        self._items.append(value)

    def _push_true(self, _: None) -> None:
        self._items.append(True)

    def _push_false(self, _: None) -> None:
        self._items.append(False)

    def _push_dict(self, _: None) -> None:
        self._items.append({})

    def _push_list(self, _: None) -> None:
        self._items.append([])

    def _push_tuple(self, _: None) -> None:
        self._items.append(())

    def _push_set(self, _: None) -> None:
        self._items.append(self._maker.set_of(()))

    def _push_buffer(self, _: None) -> None:
        self._refer("buffer")

    def _pass_by(self, _: object) -> None:
        """For opcodes that matter only to a machine that reads from a pipe or hands out views."""

    def _check_protocol(self, protocol: int) -> None:
        if protocol > _LAST_PROTOCOL:
            raise ValueError(f"got pickle protocol {protocol}, the last known is {_LAST_PROTOCOL}")

    def _mark(self, _: None) -> None:
        self._below.append(self._items)
        self._items = []

    def _above_mark(self) -> list[Any]:
        """Take off everything down to the last mark, and the mark."""
        above, self._items = self._items, self._below.pop()
        return above

    def _pop_mark(self, _: None) -> None:
        self._above_mark()

    def _pop(self, _: None) -> None:
        if self._items:
            self._items.pop()
        else:
            self._above_mark()

    def _duplicate(self, _: None) -> None:
        self._items.append(self._items[-1])

    def _put(self, number: int) -> None:
        memo = self._memo
        if not 0 <= number < _MOST_OPCODES:
            raise ValueError(f"it asks for place {number} in its memo")
        if number == len(memo):
            memo.append(self._items[-1])
            return
        if number > len(memo):  # pickles of Python 2 begin with 1, and optimized ones leave numbers out
            memo.extend([_MISSING] * (number + 1 - len(memo)))
        memo[number] = self._items[-1]

    def _memoize(self, _: None) -> None:
        self._memo.append(self._items[-1])

    def _get(self, number: int) -> None:
        value = self._memo[number] if number >= 0 else _MISSING
        if value is _MISSING:
            raise ValueError(f"its memo has nothing at place {number}")
        self._items.append(value)

    def _tuple(self, _: None) -> None:
        above = self._above_mark()
        self._items.append(tuple(above))

    def _tuple1(self, _: None) -> None:
        self._items[-1] = (self._items[-1],)

    def _tuple2(self, _: None) -> None:
        last = self._items.pop()
        self._items[-1] = (self._items[-1], last)

    def _tuple3(self, _: None) -> None:
        last, middle = self._items.pop(), self._items.pop()
        self._items[-1] = (self._items[-1], middle, last)

    def _list(self, _: None) -> None:
        above = self._above_mark()
        self._items.append(above)

    def _dict(self, _: None) -> None:
        above = self._above_mark()
        self._items.append({})
        self._enter(above)

    def _frozenset(self, _: None) -> None:
        above = self._above_mark()
        self._items.append(frozenset(self._maker.set_of(above)))

    def _append(self, _: None) -> None:
        value = self._items.pop()
        self._extend([value])

    def _appends(self, _: None) -> None:
        above = self._above_mark()
        self._extend(above)

    def _extend(self, values: list[Any]) -> None:
        target = self._items[-1]
        if isinstance(target, Made):
            made, target = target, target.appended or []
            made.appended = target
        if not isinstance(target, list):
            raise ValueError(f"it appends to a {type(target).__name__}")  # noqa: TRY004 - what the pickle is, not ours
        target.extend(values)

    def _add(self, _: None) -> None:
        above = self._above_mark()
        target = self._items[-1]
        if isinstance(target, set):
            target |= self._maker.set_of(above)
        else:
            self._extend(above)

    def _set_item(self, _: None) -> None:
        value, key = self._items.pop(), self._items.pop()
        self._enter([key, value])

    def _set_items(self, _: None) -> None:
        above = self._above_mark()
        self._enter(above)

    def _enter(self, keys_and_values: list[Any]) -> None:
        target = self._items[-1]
        if isinstance(target, Made):
            made, target = target, target.entries or {}
            made.entries = target
        if not isinstance(target, dict) or len(keys_and_values) % 2:
            raise ValueError(f"it sets {len(keys_and_values)} keys and values of a {type(target).__name__}")
        key_of, both = self._maker.key, iter(keys_and_values)
        for key in both:
            target[key_of(key)] = next(both)

    def _global(self, module_and_name: str) -> None:
        self._items.append(self._maker.named(module_and_name.replace(" ", ".", 1)))

    def _stack_global(self, _: None) -> None:
        name, module = self._items.pop(), self._items.pop()
        self._items.append(self._maker.member(module, name))

    def _extension(self, number: int) -> None:
        self._items.append(self._maker.member("copyreg", f"extension {number}"))

    def _refer(self, identity: object) -> None:
        reference = Made(PERSISTENT, (identity,))
        self.references.append(reference)
        self._items.append(reference)

    def _refer_to_last(self, _: None) -> None:
        self._refer(self._items.pop())

    def _call(self, _: None) -> None:
        arguments = self._items.pop()
        self._items[-1] = self._maker.called(self._items[-1], arguments)

    def _call_with_keywords(self, _: None) -> None:
        keywords, arguments = self._items.pop(), self._items.pop()
        self._items[-1] = self._maker.called_with_keywords(self._items[-1], arguments, keywords)

    def _instance(self, module_and_name: str) -> None:
        arguments = tuple(self._above_mark())
        self._global(module_and_name)
        self._items[-1] = self._maker.called(self._items[-1], arguments)

    def _object(self, _: None) -> None:
        kind, *arguments = self._above_mark() or [None]
        self._items.append(self._maker.called(kind, tuple(arguments)))

    def _build(self, _: None) -> None:
        state = self._items.pop()
        target = self._items[-1]
        if isinstance(target, Made):  # what torch sets on its dictionaries is of no use here
            target.state = state

    _ACTIONS: ClassVar[Mapping[Callable[[PickleMachine, Any], None], str]] = {
        _push: "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE "
        "SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 NONE",
        _push_true: "NEWTRUE",
        _push_false: "NEWFALSE",
        _push_dict: "EMPTY_DICT",
        _push_list: "EMPTY_LIST",
        _push_tuple: "EMPTY_TUPLE",
        _push_set: "EMPTY_SET",
        _push_buffer: "NEXT_BUFFER",
        _pass_by: "FRAME READONLY_BUFFER",
        _check_protocol: "PROTO",
        _mark: "MARK",
        _pop_mark: "POP_MARK",
        _pop: "POP",
        _duplicate: "DUP",
        _put: "PUT BINPUT LONG_BINPUT",
        _memoize: "MEMOIZE",
        _get: "GET BINGET LONG_BINGET",
        _tuple: "TUPLE",
        _tuple1: "TUPLE1",
        _tuple2: "TUPLE2",
        _tuple3: "TUPLE3",
        _list: "LIST",
        _dict: "DICT",
        _frozenset: "FROZENSET",
        _append: "APPEND",
        _appends: "APPENDS",
        _add: "ADDITEMS",
        _set_item: "SETITEM",
        _set_items: "SETITEMS",
        _global: "GLOBAL",
        _stack_global: "STACK_GLOBAL",
        _extension: "EXT1 EXT2 EXT4",
        _refer: "PERSID",
        _refer_to_last: "BINPERSID",
        _call: "REDUCE NEWOBJ",
        _call_with_keywords: "NEWOBJ_EX",
        _instance: "INST",
        _object: "OBJ",
        _build: "BUILD",
    }
    """What each opcode, by its name in pickletools, does."""

    _STEPS: ClassVar[Mapping[bytes, tuple[Callable[[Any], Any] | None, Callable[[PickleMachine, Any], None]]]] = {
        opcode.code.encode("latin-1"): (None if opcode.arg is None else opcode.arg.reader, act)
        for act, names in _ACTIONS.items()
        for opcode in pickletools.opcodes
        if opcode.name in names.split()
    }

"""Reads pickles as data: plain values as they are, and for everything else a record of what it was to be made of.

A pickle is a program for a small stack machine. Here that machine (:mod:`pickle_machine`) builds dictionaries, lists,
tuples, sets, texts, numbers and bytes. Where the program asks for a class, function, call or attribute, it puts down a
:class:`Made` with the name and the arguments. Nothing is imported, looked up or called, so that any class may be named,
also one that this machine has never heard of.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from spectral_edge.checkpoints.pickle_machine import PickleMachine
from spectral_edge.checkpoints.pickle_records import PERSISTENT, Made
from spectral_edge.checkpoints.raw_file import RawFile
from spectral_edge.errors import CheckpointFormatError, UnsafeCheckpointError

__all__ = ["PERSISTENT", "PICKLE_LIMIT", "Made", "Pickles", "load", "load_several"]

PICKLE_LIMIT: Final = 16 * 2**20
"""Largest pickle of a torch file that is looked at: a model's is about 150 bytes a tensor."""


@dataclass(frozen=True)
class Pickles:
    """The values of pickles that lie one behind the other, and the byte behind the last of them.

    `references` are the records of what they refer to outside of themselves, in order, with repeats.
    """

    values: list[object]
    end: int
    references: list[Made]


def load(pickled: bytes | RawFile, *, file: str) -> object:
    """The value that `pickled`, one pickle of any protocol, stands for. Nothing is executed.

    Args:
        pickled: Its bytes, or a file (or part of one) of at most :data:`PICKLE_LIMIT` bytes; what follows the pickle is
            not looked at.
        file: What messages call the file that it is in.

    Raises:
        CheckpointFormatError: Not a pickle, cut short, or one that asks for more than any checkpoint does.
        UnsafeCheckpointError: It names something whose only use is to run code or to reach the system.
    """
    (value,) = load_several(pickled, 1, file=file).values
    return value


def load_several(pickled: bytes | RawFile, count: int, *, file: str) -> Pickles:
    """The values of `count` pickles, one behind the other, each as :func:`load` gives it.

    Raises:
        CheckpointFormatError, UnsafeCheckpointError: As :func:`load`.
    """
    machine, damage = PickleMachine(_content(pickled, file)), ""
    values: list[object] = []
    try:
        with _no_search_for_cycles():
            values = [machine.run() for _ in range(count)]
    except LookupError:
        damage = "it takes from its stack or memo what is not there"
    # A DeprecationWarning is raised where warnings are errors, by a text with an escape that Python has not.
    except (ValueError, OverflowError, DeprecationWarning) as error:
        damage = str(error)
    if machine.unsafe:
        raise UnsafeCheckpointError(
            f"the file asks for {_listed(machine.unsafe)}, which a checkpoint has no honest use for. "
            "Nothing was executed.",
            file=file,
            next_step="do not load it with other tools either; ask for the weights alone, as safetensors.",
        )
    if damage:
        raise CheckpointFormatError(f"its pickle cannot be used: {damage}.", file=file)
    return Pickles(values, machine.position, machine.references)


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Stop Python from going through all objects again and again while many are made: that takes most of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _content(pickled: bytes | RawFile, file: str) -> bytes:
    if not isinstance(pickled, RawFile):
        return pickled
    if pickled.size > PICKLE_LIMIT:
        raise CheckpointFormatError(f"got a pickle of {pickled.size} bytes, the limit is {PICKLE_LIMIT}.", file=file)
    return bytes(pickled.read(0, pickled.size))


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    shown = ", ".join(f"`{ascii(name)[1:-1][:100]}`" for name in every[:5])
    return shown + (f" and {len(every) - 5} more" if len(every) > 5 else "")

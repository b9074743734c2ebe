"""Modules that were pickled whole, by `torch.save(model)` or `mlflow.pytorch.log_model`, turned into what they hold.

Their classes may be unknown here: a module's record has the dictionaries `_parameters`, `_buffers` and `_modules` among
its attributes whatever its class, and these give the names of `model.state_dict()`. TorchScript keeps parameters,
buffers and modules as plain attributes instead, and tells in its code which is which.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from spectral_edge.checkpoints.inert_pickle import Made
from spectral_edge.checkpoints.state_dict import Leaf
from spectral_edge.checkpoints.tensor_records import tensor_of
from spectral_edge.errors import CheckpointFormatError

MOST_TENSORS: Final = 100_000
"""Most tensors and modules in one file, each counted as often as it is named."""

_DEEPEST: Final = 100
_LONGEST_NAME: Final = 1000
_COMPILED: Final = "torch._dynamo.eval_frame.OptimizedModule"

_Members = Iterator[tuple[str, object, bool]]
"""Name and value of each member of a module, and whether it is a buffer."""


def without_records(loaded: object) -> object:
    """`loaded` as dictionaries and lists of leaves.

    Tensors become leaves, modules and dictionaries of other classes become dictionaries, tuples become lists, and all
    else becomes None. What contains itself still does.

    Raises:
        CheckpointFormatError: An object of another class, or more tensors, or modules deeper within modules, than any
            model has.
    """
    converted = _Conversion().converted(loaded)
    if converted is None and isinstance(loaded, Made):
        raise CheckpointFormatError(
            f"expected a dictionary with tensors by name, or a module, got an object of {ascii(loaded.name)[:100]}."
        )
    return converted


def script_module(root: Made, parameters: Mapping[str, frozenset[str]]) -> dict[str, Leaf]:
    """The tensors of a TorchScript module, given the names of the parameters of each class.

    Raises:
        CheckpointFormatError: As :func:`without_records`.
    """

    def members(module: Made) -> _Members | None:
        if not module.name.startswith("__torch__.") or not isinstance(module.state, dict):
            return None
        known = parameters.get(module.name, frozenset())
        return ((name, value, name not in known) for name, value in module.state.items() if isinstance(name, str))

    return _Walk(members).tensors(root)


class _Conversion:
    """Converts nested values, nearest first, each once."""

    def __init__(self) -> None:
        self._modules = _Walk(_module_members)
        self._made: dict[int, object] = {}
        self._pending: deque[tuple[object, dict[object, object] | list[object]]] = deque()
        self._tensors = 0

    def converted(self, loaded: object) -> object:
        """`loaded` and all within."""
        result = self._shell(loaded)
        while self._pending:
            value, shell = self._pending.popleft()
            if isinstance(shell, dict) and isinstance(value, Mapping):
                shell.update((key, self._shell(item)) for key, item in value.items())
            elif isinstance(shell, list) and isinstance(value, (list, tuple)):
                shell.extend(map(self._shell, value))
        return result

    def _shell(self, value: object) -> object:
        """What `value` becomes; its own entries are converted later."""
        if isinstance(value, Made):
            return self._of_record(value)
        if not isinstance(value, (dict, list, tuple)):
            return value if isinstance(value, Leaf) else None
        if id(value) not in self._made:
            shell: dict[object, object] | list[object] = {} if isinstance(value, dict) else []
            self._made[id(value)] = shell
            self._pending.append((value, shell))
        return self._made[id(value)]

    def _of_record(self, record: Made) -> object:
        if id(record) not in self._made:
            tensor = tensor_of(record)
            self._made[id(record)] = tensor if tensor is not None else self._of_module(record)
        made = self._made[id(record)]
        self._tensors += isinstance(made, Leaf)
        if self._tensors > MOST_TENSORS:
            raise _too_many()
        return made

    def _of_module(self, record: Made) -> object:
        if _module_members(record) is not None:
            return self._modules.tensors(record)
        return self._shell(record.entries) if isinstance(record.entries, dict) else None


class _Walk:
    """Goes through a module's members, and theirs."""

    def __init__(self, members: Callable[[Made], _Members | None]) -> None:
        self._members = members
        self._left = MOST_TENSORS

    def tensors(self, root: Made) -> dict[str, Leaf]:
        """The tensors by name, as `state_dict()` of the module would give them, in its order."""
        return dict(self._within(root, "", _DEEPEST))

    def _within(self, module: Made, prefix: str, depth: int) -> Iterator[tuple[str, Leaf]]:
        if depth == 0 or len(prefix) > _LONGEST_NAME:
            raise CheckpointFormatError(f"modules lie too deep within modules: {ascii(prefix)[:100]}.")
        for name, value, is_buffer in self._members(module) or ():
            self._left -= 1
            if self._left < 0:
                raise _too_many()
            if not isinstance(value, Made):
                continue
            tensor = tensor_of(value)
            if tensor is None:
                yield from self._within(value, f"{prefix}{name}.", depth - 1)
            else:
                yield prefix + name, replace(tensor, is_buffer=True) if is_buffer else tensor


def _module_members(record: Made) -> _Members | None:
    """Parameters, buffers and modules, in the order of `state_dict()`; None when the record is no module's."""
    first = record.arguments[0] if record.arguments else None
    if record.name == _COMPILED:
        return iter([("_orig_mod", first, False)])
    for attributes in (record.state, first):  # those of a torch.fx.GraphModule are an argument of the call
        match attributes:
            case {"_parameters": dict(parameters), "_buffers": dict(buffers), "_modules": dict(modules), **others}:
                passing = others.get("_non_persistent_buffers_set")
                return _listed(parameters, buffers, modules, passing if isinstance(passing, set) else set())
    return None


def _listed(
    parameters: Mapping[object, object],
    buffers: Mapping[object, object],
    modules: Mapping[object, object],
    passing: set[object],
) -> _Members:
    for members, are_buffers in ((parameters, False), (buffers, True), (modules, False)):
        for name, value in members.items():
            if isinstance(name, str) and not (are_buffers and name in passing):
                yield name, value, are_buffers


def _too_many() -> CheckpointFormatError:
    return CheckpointFormatError(f"more than {MOST_TENSORS} tensors and modules, the most that is read from a file.")

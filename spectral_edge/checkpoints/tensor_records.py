"""Tensors as torch writes them into pickles: a storage, and a view of it by offset, shape and strides.

A storage is a persistent id, `("storage", type, key, device, entries)`; the key tells where its bytes lie. A tensor is
a call of `torch._utils._rebuild_tensor_v2` or a like function with a storage, and a parameter one with a tensor.
Source: torch/_utils.py, torch/_tensor.py (`_reduce_ex_internal`), torch/serialization.py (`persistent_id`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch

from spectral_edge.checkpoints.inert_pickle import Made
from spectral_edge.checkpoints.protocol import TensorInfo
from spectral_edge.checkpoints.state_dict import Leaf

_DIMENSIONS: Final = 64
_LARGEST: Final = 2**63 - 1

FLOATING: Final[Mapping[str, torch.dtype]] = {
    str(dtype): dtype
    for dtype in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2fnuz,
    )
}
"""The dtypes that parameters may have, by the name that pickles call them."""

_STORAGES: Final[Mapping[str, tuple[int, torch.dtype | None]]] = {
    "DoubleStorage": (8, torch.float64),
    "FloatStorage": (4, torch.float32),
    "HalfStorage": (2, torch.float16),
    "BFloat16Storage": (2, torch.bfloat16),
    "LongStorage": (8, None),
    "IntStorage": (4, None),
    "ShortStorage": (2, None),
    "CharStorage": (1, None),
    "ByteStorage": (1, None),
    "BoolStorage": (1, None),
    "ComplexFloatStorage": (8, None),
    "ComplexDoubleStorage": (16, None),
    "QInt32Storage": (4, None),
    "QInt8Storage": (1, None),
    "QUInt8Storage": (1, None),
    "QUInt4x2Storage": (1, None),
    "QUInt2x4Storage": (1, None),
    "UntypedStorage": (1, None),
}
"""Bytes of an entry, and its dtype if it is of floating point; whatever the module, as old files name torch.cuda's."""

_PLAIN: Final = frozenset({"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"})
_WITH_DTYPE: Final = "torch._utils._rebuild_tensor_v3"
_LAZY: Final = "a lazily negated or conjugated tensor"
_AROUND: Final = frozenset(
    {
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_device_tensor_from_cpu_tensor",
        "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer",
        "torch.autograd.variable.Variable",
    }
)
"""Functions and classes whose first argument is a tensor, which they wrap."""

_OF_TYPE: Final = frozenset({"torch._tensor._rebuild_from_type", "torch._tensor._rebuild_from_type_v2"})
_OTHERS: Final[Mapping[str, str]] = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_qtensor": "a quantized tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without data, from the device `meta`",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of a class of its own",
    "torch._utils._rebuild_device_tensor_from_numpy": "a tensor of another device, kept as a NumPy array",
    "torch._utils._rebuild_xla_tensor": "a tensor of another device, kept as a NumPy array",
    "torch.distributed.tensor.DTensor": "a part of a distributed tensor",
    "torch.distributed._tensor.api.DTensor": "a part of a distributed tensor",
}
"""What is no plain dense tensor, and what messages call it."""


class Storage(NamedTuple):
    """A storage as a pickle refers to it: the key of its bytes, and how many entries of how many bytes they are.

    `dtype` is None for what is not of floating point, or not told. `part` is where views of it count from, and how far:
    the first entry, and the number of entries.
    """

    key: str
    itemsize: int
    dtype: torch.dtype | None
    entries: int
    part: tuple[int, int]


@dataclass(frozen=True)
class TensorRecord(Leaf):
    """One tensor: a view of a storage. `dtype` is None for what is not of floating point.

    `flaw` says what it is instead of a plain dense tensor; empty when it is one.
    """

    storage: Storage | None
    dtype: torch.dtype | None
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    flaw: str = ""

    @classmethod
    def flawed(cls, what: str) -> TensorRecord:
        """A tensor that cannot be read, because it is `what`."""
        return cls(1, False, None, torch.float32, 0, (), (), what)

    @property
    def info(self) -> TensorInfo | None:
        """Shape and dtype; None for what is not of floating point."""
        return None if self.dtype is None else TensorInfo(self.shape, self.dtype)


def tensor_of(value: object) -> TensorRecord | None:
    """The tensor that an inert record stands for; None when it stands for anything else."""
    for _ in range(_DIMENSIONS):  # a parameter of a subclass is a call within a call
        if not isinstance(value, Made) or not value.called:
            return None
        name, arguments = value.name, value.arguments
        if name in _OTHERS:
            return TensorRecord.flawed(_OTHERS[name])
        if name in _PLAIN or name == _WITH_DTYPE:
            return _dense(name, arguments)
        if name in _AROUND and arguments:
            value = arguments[0]
            continue
        match arguments:
            case (Made(called=False) as function, Made(called=False) as kind, tuple(inner), *_) if name in _OF_TYPE:
                if kind.name in _OTHERS:
                    return TensorRecord.flawed(_OTHERS[kind.name])
                value = Made(function.name, inner)
            case _:
                return None
    return None


def _dense(name: str, arguments: tuple[object, ...]) -> TensorRecord:
    match arguments:
        case (Made(arguments=(identity,)), int(offset), size, stride, *rest):
            storage, shape, strides = storage_of(identity), whole_numbers(size), whole_numbers(stride)
        case _:
            return TensorRecord.flawed("a tensor without a storage")
    if storage is None or shape is None or strides is None or len(shape) != len(strides) or offset < 0:
        return TensorRecord.flawed(
            f"a tensor of shape {str(shape)[:100]}, strides {str(strides)[:100]} and offset {offset}"
        )
    dtype = storage.dtype
    if name == _WITH_DTYPE:
        dtype = FLOATING.get(rest[2].name) if len(rest) > 2 and isinstance(rest[2], Made) else None
    return TensorRecord(
        entries_of(shape), False, storage, dtype, offset, shape, strides, _LAZY if _is_lazy(arguments) else ""
    )


def _is_lazy(arguments: tuple[object, ...]) -> bool:
    """Whether the last argument says that bits are set: `{"neg": True}`; backward hooks have numbers as keys."""
    last = arguments[-1]
    return isinstance(last, dict) and (last.get("neg") is True or last.get("conj") is True)


def storage_of(identity: object) -> Storage | None:
    """The storage of a persistent id; None when it is none."""
    match identity:
        case ("storage", Made(called=False) as kind, str(key), _, int(entries), *view) if entries >= 0:
            itemsize, dtype = _STORAGES.get(kind.name.rpartition(".")[2], (0, None))
        case _:
            return None
    match view:
        case [] | [None]:
            part = (0, entries)
        case [(_, int(first), int(count))] if 0 <= first <= first + count <= entries:
            part = (first, count)
        case _:
            return None
    return Storage(key, itemsize, dtype, entries, part) if itemsize else None


def whole_numbers(size: object) -> tuple[int, ...] | None:
    """The numbers of a shape or of strides; None when it is none, or one that torch cannot have."""
    if isinstance(size, Made) and size.name == "torch.Size" and len(size.arguments) == 1:
        (size,) = size.arguments
    if not isinstance(size, tuple) or len(size) > _DIMENSIONS:
        return None
    for number in size:
        if type(number) is not int or not 0 <= number <= _LARGEST:
            return None
    return size


def entries_of(shape: tuple[int, ...]) -> int:
    """Number of entries of a tensor of this shape."""
    count = 1
    for extent in shape:
        count *= extent
    return count

"""Pickles read as data: plain values are what pickle itself makes of them, and nothing else is made at all."""

from __future__ import annotations

import argparse
import collections
import contextlib
import gc
import pickle
import pickletools
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectral_edge.checkpoints.inert_pickle import PERSISTENT, PICKLE_LIMIT, Made, load, load_several
from spectral_edge.checkpoints.raw_file import RawFile
from spectral_edge.checkpoints.unsafe_names import is_unsafe
from spectral_edge.errors import CheckpointFormatError, UnsafeCheckpointError

_keys = st.one_of(st.text(max_size=9), st.integers(), st.floats(allow_nan=False), st.booleans(), st.binary(max_size=9))
_scalars = st.one_of(_keys, st.none(), st.complex_numbers(allow_nan=False), st.binary().map(bytearray))
_values = st.recursive(
    st.one_of(_scalars, st.sets(st.text(max_size=3)), st.frozensets(st.integers(-9, 9))),
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(st.one_of(_keys, st.tuples(_keys, _keys)), inner),
        st.dictionaries(st.text(max_size=3), inner).map(collections.OrderedDict),
    ),
    max_leaves=20,
)


def _without_long_numbers(value: object) -> bool:
    """Numbers of more than 64 bits are no keys: see `pickle_records`."""
    if isinstance(value, dict):
        keys = [part for key in value for part in (key if isinstance(key, tuple) else (key,))]
        within = value.values()
    else:
        keys, within = [], value if isinstance(value, (list, tuple)) else ()
    short = all(not isinstance(key, int) or key.bit_length() <= 64 for key in keys)
    return short and all(map(_without_long_numbers, within))


def _types(value: object) -> object:
    """The types within `value`: 1, 1.0 and True are equal, and so are bytes and bytearrays."""
    if isinstance(value, dict):
        return dict, [(_types(key), _types(item)) for key, item in value.items()]
    return (type(value), [*map(_types, value)]) if isinstance(value, (list, tuple)) else type(value)


@given(value=_values.filter(_without_long_numbers), protocol=st.integers(0, 5), optimized=st.booleans())
def test_plain_values_of_every_protocol(value: object, protocol: int, optimized: bool) -> None:
    pickled = pickle.dumps(value, protocol)
    read = load(pickletools.optimize(pickled) if optimized else pickled, file="x")
    assert read == value
    assert _types(read) == _types(value)


def test_values_that_are_shared_or_contain_themselves_stay_so() -> None:
    shared: list[object] = [1]
    loop: dict[str, object] = {"a": shared, "b": shared}
    loop["self"] = loop
    read = load(pickle.dumps(loop), file="x")
    assert isinstance(read, dict)
    assert read["a"] is read["b"]
    assert read["self"] is read


@pytest.mark.parametrize("protocol", range(6))
def test_objects_become_records(protocol: int) -> None:
    read = load(pickle.dumps(argparse.Namespace(lr=0.5, path=Path("a/b")), protocol), file="x")
    assert isinstance(read, Made)
    assert read.name == "argparse.Namespace"
    assert read.called
    assert isinstance(read.state, dict)
    assert read.state["lr"] == 0.5
    path = read.state["path"]
    assert isinstance(path, Made)
    assert path.name == "pathlib.PosixPath"
    assert path.arguments == ("a", "b")


def test_what_is_added_to_an_object() -> None:
    read = load(pickle.dumps(collections.deque([1, 2]), 2), file="x")
    assert isinstance(read, Made)
    assert list(read.appended) == [1, 2]
    read = load(b"\x80\x02cany.where\nTable\n)\x81(X\x01\0\0\0aK\x01u.", file="x")
    assert isinstance(read, Made)
    assert read.entries == {"a": 1}
    assert repr(read) == "<any.where.Table>"


def test_classes_members_and_keywords() -> None:
    cls, member, made = (
        load(content, file="x")
        for content in (
            b"\x80\x02ca.b\nC\n.",
            b"\x80\x02c__builtin__\ngetattr\nca.b\nC\nX\x01\0\0\0d\x86R.",
            b"\x80\x04\x8c\x01a\x8c\x01C\x93K\x01\x85}\x8c\x01kK\x02s\x92.",
        )
    )
    assert [(value.name, value.called) for value in (cls, member) if isinstance(value, Made)] == [
        ("a.b.C", False),
        ("a.b.C.d", False),
    ]
    assert isinstance(made, Made)
    assert made.arguments == (1, {"k": 2})


def test_references_out_of_the_pickle_are_gathered() -> None:
    read = load_several(b"\x80\x02X\x01\0\0\0aQX\x01\0\0\0bQ\x86.\x80\x02K\x07.rest", 2, file="x")
    assert [reference.arguments for reference in read.references] == [("a",), ("b",)]
    assert all(reference.name == PERSISTENT for reference in read.references)
    assert read.values == [tuple(read.references), 7]
    assert read.end == len(b"\x80\x02X\x01\0\0\0aQX\x01\0\0\0bQ\x86.\x80\x02K\x07.")


def test_nothing_is_imported() -> None:
    before = set(sys.modules)
    load(b"\x80\x02cantigravity_of_mine\nfly\n)R.", file="x")
    load(b"\x80\x02cxml.dom.expatbuilder\nparse\n)R.", file="x")
    assert set(sys.modules) == before


def test_pickles_of_python_2() -> None:
    """Texts as bytes of Latin-1, a memo that begins with 1, and dictionaries filled from pairs."""
    pickled = b"\x80\x02ccollections\nOrderedDict\nq\x01]q\x02]q\x03(U\x01aq\x04K\x05ea\x85q\x05Rq\x06h\x04\x86."
    assert load(pickled, file="x") == ({"a": 5}, "a")
    assert load(b"(dp1\nS'it'\np2\nI5\nsS'yes'\nI01\ns.", file="x") == {"it": 5, "yes": True}


def test_keys_that_cost_time_stand_in_a_record() -> None:
    read = load(pickle.dumps({2**70: 1, "x" * 2000: 2, (1,) * 40: 3, 5: 4}), file="x")
    assert isinstance(read, dict)
    assert read.pop(5) == 4
    assert [key.arguments[0] for key in read] == [2**70, "x" * 2000, (1,) * 40]


def test_more_numbers_as_keys_than_any_state_has() -> None:
    read = load(pickle.dumps(dict.fromkeys(range(20_000))), file="x")
    assert isinstance(read, dict)
    assert len(read) == 20_000
    assert sum(isinstance(key, int) for key in read) == 10_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut short"),
        (b"\x80\x02K", "pickle cannot be used"),
        (b"\x80\x02K\x01", "cut short"),
        (b"\x80\x06N.", "protocol 6"),
        (b"\xff.", "no opcode b'\\\\xff'"),
        (b".", "not there"),
        (b"\x80\x02s.", "not there"),
        (b"\x80\x02t.", "not there"),
        (b"\x80\x02h\x05.", "not there|nothing at place"),
        (b"\x80\x02Nq\x05h\x03.", "nothing at place 3"),
        (b"g-1\n.", "nothing at place -1"),
        (b"Np-1\n.", "place -1"),
        (b"\x80\x02K\x01K\x02a.", "appends to a int"),
        (b"\x80\x02K\x01(K\x02e.", "appends to a int"),
        (b"\x80\x02]K\x01K\x02s.", "sets 2 keys and values of a list"),
        (b"\x80\x02}(K\x02u.", "sets 1 keys and values"),
        (b"\x80\x04K\x01K\x02\x93.", "no text"),
        (b"c" + b"a" * 2000 + b"\nb\n.", "letters"),
        (b"S'\\q'\n.", "cannot be used"),
        (b"S'no end\n.", "cannot be used"),
        (b"I" + b"9" * 9999 + b"\n.", "cannot be used"),
        (b"(ia.b\n.", "cannot be used"),
    ],
)
def test_damage(content: bytes, message: str) -> None:
    with pytest.raises(CheckpointFormatError, match=message) as caught:
        load(content, file="model.pt")
    assert caught.value.file == "model.pt"
    assert gc.isenabled()


@given(content=st.binary(max_size=60), start=st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"\x80\x02}(]("]))
def test_any_bytes_give_a_value_or_a_typed_error(content: bytes, start: bytes) -> None:
    with contextlib.suppress(CheckpointFormatError, UnsafeCheckpointError):
        load(start + content + b".", file="x")


def test_a_pickle_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"????" + pickle.dumps({"a": 1}) + b"????")
    with RawFile.open(path) as file:
        assert load(file.part(4, file.size - 8), file=file.name) == {"a": 1}
        with path.open("r+b") as longer:
            longer.truncate(PICKLE_LIMIT + 9)
    with RawFile.open(path) as file, pytest.raises(CheckpointFormatError, match="limit"):
        load(file, file=file.name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "os.system",
            "posix.system",
            "nt.system",
            "subprocess.Popen",
            "commands.getoutput",
            "sys.modules",
            "pty.spawn",
        ),
        *("builtins.eval", "__builtin__.exec", "builtins.__import__", "builtins.open", "builtins.setattr"),
        *("torch.serialization.os.system", "numpy.__builtins__.eval", "torch.sys.modules", "a.subprocess.run"),
        *(
            "importlib.import_module",
            "runpy.run_path",
            "shutil.rmtree",
            "socket.socket",
            "ctypes.CDLL",
            "code.interact",
        ),
        *("pickle.loads", "_pickle.Unpickler", "torch.load", "torch.hub.load", "torch.serialization.load"),
        *("types.CodeType", "types.FunctionType", "operator.attrgetter", "operator.methodcaller", "webbrowser.open"),
    ],
)
def test_names_that_serve_to_run_code(name: str) -> None:
    module, _, member = name.rpartition(".")
    content = f"\x80\x02c{module}\n{member}\n.".encode("latin-1")
    with pytest.raises(UnsafeCheckpointError, match="Nothing was executed") as caught:
        load(content, file="model.pt")
    assert f"`{name}`" in caught.value.what
    assert caught.value.file == "model.pt"


@pytest.mark.parametrize(
    "name",
    [
        *("torch.nn.modules.linear.Linear", "torch._utils._rebuild_tensor_v2", "__main__.Net", "code.networks.Net"),
        *(
            "builtins.getattr",
            "builtins.set",
            "builtins.type",
            "functools.partial",
            "operator.itemgetter",
            "posixpath.join",
        ),
        *("collections.OrderedDict", "numpy.core.multiarray.scalar", "pathlib.PosixPath", "omegaconf.DictConfig"),
        *("cloudpickle.cloudpickle._make_function", "torch._dynamo.eval_frame.OptimizedModule", "evaluate.Net"),
    ],
)
def test_names_in_honest_checkpoints(name: str) -> None:
    assert not is_unsafe(name)


def test_all_unsafe_names_are_told_at_once() -> None:
    content = b"\x80\x02" + b"".join(b"cos\nf%d\n" % number for number in range(9)) + b"."
    with pytest.raises(UnsafeCheckpointError, match=r"`os\.f0`, `os\.f1`, .* and 4 more"):
        load(content, file="x")


def test_a_million_opcodes_of_tensors_are_read() -> None:
    """Thirty thousand tensors in one pickle."""
    state = {f"layers.{number}.weight": torch.Size([number]) for number in range(30_000)}
    read = load(pickle.dumps(state, 2), file="x")
    assert isinstance(read, dict)
    assert len(read) == 30_000

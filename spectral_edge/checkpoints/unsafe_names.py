"""Classes and functions whose only use in a checkpoint is to run code or to reach the system.

Nothing that a pickle names is ever looked up here, so that no name does harm. But a file that names one of these was
made to do harm to whoever loads it with pickle, and its reader should hear of it. The lists follow those of picklescan
(`scanner.py`, `_unsafe_globals`) and fickling (`fickle.py`, `UNSAFE_IMPORTS`), less what honest checkpoints contain:
partial functions, bound methods (`getattr`), and what cloudpickle needs to write a class out.
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SYSTEM: Final = _words(
    "os nt posix subprocess _posixsubprocess sys importlib _frozen_importlib runpy shutil socket _socket ctypes "
    "_ctypes pty"
)
"""Modules of which any member counts, also where a dotted name walks through them: `torch.serialization.os.system`."""

_MODULES: Final = _words(
    "pickle _pickle cPickle marshal imp pkgutil zipimport pip ensurepip venv distutils setuptools lib2to3 idlelib "
    "pdb bdb cProfile profile trace timeit doctest pydoc webbrowser antigravity asyncio multiprocessing _thread "
    "mmap fcntl ftplib telnetlib smtplib imaplib poplib httplib socketserver urllib2 requests aiohttp httpx "
    "paramiko shelve codeop commands popen2 SocketServer xmlrpclib thread"
)
"""Modules of which any member counts, under their own name only; also Python 2's, which protocols up to 2 name."""

_OF_BUILTINS: Final = frozenset({"builtins", "__builtin__", "__builtins__"})
_BUILTINS: Final = _words(
    "eval exec execfile compile open file input raw_input __import__ reload apply setattr delattr globals locals "
    "vars breakpoint exit quit help __build_class__"
)

_MEMBERS: Final = _words(
    "operator.attrgetter operator.methodcaller _operator.attrgetter _operator.methodcaller types.FunctionType "
    "types.LambdaType types.CodeType types.ModuleType code.interact code.InteractiveInterpreter "
    "code.InteractiveConsole code.compile_command io.open io.open_code _io.open _io.open_code _io.FileIO io.FileIO "
    "urllib.request http.client http.server xmlrpc.client xmlrpc.server torch.load torch.hub "
    "torch.serialization.load torch.jit.load torch.package torch.utils.cpp_extension torch.utils.collect_env "
    "torch.utils.bottleneck torch.utils._config_module torch.ops.load_library torch.classes.load_library "
    "torch._inductor.codecache torch._dynamo.guards torch.distributed.rpc torch.jit.unsupported_tensor_ops "
    "numpy.load numpy.f2py numpy.ctypeslib numpy.distutils numpy.testing._private.utils pandas.eval "
    "pandas.read_pickle joblib.load dill.load dill.loads dill._dill.load dill._dill.loads cloudpickle.load "
    "cloudpickle.loads numexpr.evaluate uuid._get_command_stdout logging.config"
)
"""Single members, and modules within packages."""
_OF_MEMBERS: Final = frozenset(name.partition(".")[0] for name in _MEMBERS)
_DEEPEST_MEMBER: Final = max(name.count(".") for name in _MEMBERS) + 1


def is_unsafe(name: str) -> bool:
    """Whether a pickle that names `name`, a dotted path from a top module on, was made to run code."""
    path = name.split(".")
    if path[0] in _MODULES or not _SYSTEM.isdisjoint(path):
        return True
    if not _OF_BUILTINS.isdisjoint(path) and not _BUILTINS.isdisjoint(path):
        return True
    return path[0] in _OF_MEMBERS and any(".".join(path[:end]) in _MEMBERS for end in range(2, _DEEPEST_MEMBER + 1))

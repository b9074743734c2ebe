"""A probe is code that a user wrote: it runs here, in a process of its own, with limits, and only when it was named.

The parent, :func:`probe_in_child`, starts this module as a program of this Python. The child imports what it needs of
us, sets its limits, then imports the user's module and evaluates the probe on one window. Whatever happens there, the
parent gets a result or raises one error that tells it.

This guards against accidents: a crash, a hang, a leak. It is no jail: the code may do what its user may do.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, cast

from pipelines.wording import plain_text, size_text
from spectral_edge import errors
from spectral_edge.errors import SpectralEdgeError, UsageError
from spectral_edge.gram import LocalCheckpoint
from spectral_edge.probe import Probe, probe_window
from spectral_edge.settings import Settings

ENTRY_POINTS: Final = "spectral_edge.probes"
"""Group in which an installed package can give its probes short names."""

_KEPT_LINES: Final = 200
_GRACE_SECONDS: Final = 10


@dataclass(frozen=True)
class Limits:
    """What the child may take for one window.

    `seconds` of wall time and, on Linux, `memory` bytes of address space beyond what PyTorch takes to be loaded.
    """

    seconds: float = 600.0
    memory: int = 16_000_000_000


@dataclass(frozen=True)
class Task:
    """One window to be probed.

    `name` is `module:function`, or an entry point of ENTRY_POINTS; `checkpoints` are those of probe_window, `params`
    the run's own parameters, for probes whose data depend on them.
    """

    name: str
    checkpoints: Sequence[LocalCheckpoint]
    window: int
    include: Sequence[str]
    group: str
    learning_rate: float | None
    weight_decay: float | None
    params: Mapping[str, str]

    def as_json(self) -> str:
        """For the child."""
        told = asdict(self) | {"params": dict(self.params)}
        told["checkpoints"] = [(c.step, c.name, [str(file.absolute()) for file in c.files]) for c in self.checkpoints]
        return json.dumps(told)

    @classmethod
    def from_json(cls, text: str) -> Task:
        """As the parent wrote it."""
        told = json.loads(text)
        checkpoints = [
            LocalCheckpoint(step, name, tuple(map(Path, files))) for step, name, files in told["checkpoints"]
        ]
        return cls(**told | {"checkpoints": checkpoints})


def probe_in_child(task: Task, limits: Limits) -> dict[str, Any]:
    """Evaluate the probe in a child process: the fields of spectral_edge.probe.ProbedWindow as JSON has them.

    Raises:
        UsageError: The probe cannot be found, breaks its contract, raised something, crashed, or broke a limit.
        SpectralEdgeError: What probe_window raises of the checkpoints.
    """
    with tempfile.TemporaryDirectory(prefix="spectral-edge-probe-") as folder:
        asked, answer = Path(folder, "task.json"), Path(folder, "answer.json")
        asked.write_text(task.as_json())
        command = [sys.executable, "-P", "-m", "pipelines.probe_process", str(asked), str(answer)]
        ended, output = _run([*command, str(limits.seconds), str(limits.memory)], limits.seconds)
        if ended is None:
            raise _failed(
                task,
                f"did not come to an end within {limits.seconds:g} s on one window, and was stopped",
                "use less data, or allow more with --timeout.",
                output,
            )
        if ended != 0 or not answer.is_file():
            raise _failed(task, _how_it_ended(ended), "run its function by itself to see why.", output)
        return _told(json.loads(answer.read_text()))


def _run(command: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Exit status, None after a time-out, and the last lines of output. Nothing the command started is left."""
    with subprocess.Popen(  # noqa: S603 - this Python, our module, and paths of ours
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        lines: deque[str] = deque(maxlen=_KEPT_LINES)
        stream = process.stdout
        assert stream is not None  # noqa: S101 - a pipe was asked for
        reader = threading.Thread(target=lambda: _keep(iter(lambda: stream.readline(4096), ""), lines), daemon=True)
        reader.start()
        ended: int | None
        try:
            ended = process.wait(seconds)
        except subprocess.TimeoutExpired:
            ended = None
        finally:
            _stop(process)
            reader.join(_GRACE_SECONDS)
    return ended, "".join(lines)


def _keep(lines: Any, into: deque[str]) -> None:
    with suppress(ValueError):  # the stream was closed while it was read
        into.extend(lines)


def _stop(process: subprocess.Popen[str]) -> None:
    """Kill the process and, where the system has sessions, all that it started."""
    if sys.platform == "win32":
        process.kill()
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended its process with exit status {status} instead of giving a result"
    with suppress(ValueError):
        return f"crashed its process ({signal.Signals(-status).name})"
    return f"crashed its process (signal {-status})"


def _failed(task: Task, what: str, next_step: str, output: str) -> UsageError:
    last = [plain_text(line) for line in output.splitlines() if line.strip()][-3:]
    said = f"; its last words: {' | '.join(last)[-500:]}" if last else ""
    return UsageError(f"the probe {task.name} {what}{said}.", next_step=next_step)


def _told(answer: Mapping[str, Any]) -> dict[str, Any]:
    if "window" in answer:
        return cast("dict[str, Any]", answer["window"])
    kind = getattr(errors, str(answer.get("kind")), UsageError)
    raise kind(answer["what"], **answer["details"])


def main(asked: str, answer: str, seconds: str, memory: str) -> None:
    """The child: evaluate the task in file `asked`, and write what came of it to file `answer`."""
    task = Task.from_json(Path(asked).read_text())
    _set_limits(float(seconds), int(memory))
    sys.path.insert(0, str(Path.cwd()))  # only now: a folder `pipelines` in it must not hide ours
    told: dict[str, Any]
    try:
        told = {"window": _evaluate(task)}
    except SpectralEdgeError as error:
        told = {"kind": type(error).__name__, "what": error.what, "details": error.details()}
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything, and it has to be told
        told = _raised(task, error, int(memory))
    Path(answer).write_text(json.dumps(told))


def _evaluate(task: Task) -> dict[str, Any]:
    settings = Settings(window=task.window, lags=task.window, include=tuple(task.include))  # type: ignore[arg-type]
    probe = load_probe(task.name, task.params)
    probed = probe_window(
        probe,
        task.checkpoints,
        settings,
        group=task.group,
        learning_rate=task.learning_rate,
        weight_decay=task.weight_decay,
    )
    return probed.as_json()


def load_probe(name: str, params: Mapping[str, str]) -> Probe:
    """The probe that `name` means; its module is imported, which runs it.

    A function of one parameter is the training loss itself. One without positional parameters is called, with the
    run's parameters where it takes `run_params`, and returns a Probe or a loss.

    Raises:
        UsageError: There is no such module or function, or it is neither.
    """
    function = _named(name)
    if not callable(function):
        raise UsageError(f"{name} is a {type(function).__name__}, not a function.", next_step="see docs/probe.md.")
    parameters = inspect.signature(function).parameters
    positional = [p for p in parameters.values() if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    required = [p.name for p in positional if p.default is p.empty and p.name != "run_params"]
    if len(required) == 1:
        return Probe(function)
    if required:
        raise UsageError(
            f"{name} takes {len(required)} arguments ({', '.join(required)}).",
            next_step="give a function of the parameters alone, or one of nothing that returns a Probe.",
        )
    made = function(run_params=dict(params)) if "run_params" in parameters else function()
    if isinstance(made, Probe):
        return made
    if callable(made):
        return Probe(made)
    raise UsageError(
        f"{name}() returned {type(made).__name__}.", next_step="return a spectral_edge.probe.Probe, or a loss function."
    )


def _named(name: str) -> Any:
    module, colon, function = name.partition(":")
    if not colon:
        known = entry_points(group=ENTRY_POINTS)
        if name not in known.names:
            raise UsageError(
                f"`{name}` is not written module:function, and no installed package has a probe of that name.",
                next_step=f"known names: {', '.join(sorted(known.names)) or 'none'}.",
            )
        return known[name].load()
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there; what it imports is not
        raise UsageError(
            f"there is no module `{module}` in {Path.cwd()} or among what is installed.",
            next_step="run the command in the folder that holds it, or set PYTHONPATH.",
        ) from None
    if not hasattr(found, function):
        raise UsageError(f"module `{module}` has no `{function}`.", file=found.__file__)
    return getattr(found, function)


def _raised(task: Task, error: Exception, memory: int) -> dict[str, Any]:
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        what = f"the probe {task.name} needs more memory than {size_text(memory)}, its limit."
        next_step = "use less data at once, or allow more with --memory."
    else:
        frames = traceback.extract_tb(error.__traceback__)
        ours = (str(Path(__file__).parent), str(Path(errors.__file__).parent), str(Path(json.__file__).parent.parent))
        theirs = [f for f in frames if not f.filename.startswith((*ours, "<")) and "site-packages" not in f.filename]
        where = f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""
        what = f"the probe {task.name} raised {type(error).__name__}: {plain_text(str(error))[:500]}{where}."
        next_step = "correct it; docs/probe.md has the contract."
    return {"kind": "UsageError", "what": what, "details": {"next_step": next_step}}


def _set_limits(seconds: float, memory: int) -> None:
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - Windows has none

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(int(seconds) + _GRACE_SECONDS)  # in case that the parent is killed and cannot stop us
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # threads that the user's code has left running must not hold us up

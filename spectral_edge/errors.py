"""Every error spectral-edge raises on purpose, in one tree.

The two branches under :class:`SpectralEdgeError` decide what a caller does next:

    SpectralEdgeError
    |-- TerminalError                   trying again changes nothing
    |   |-- UsageError (ValueError)         the request itself is wrong: source, setting, SQL
    |   |-- CheckpointError (ValueError)    one file is not what it claims to be
    |   |   |-- CheckpointFormatError           truncated, wrong magic, sizes that do not add up
    |   |   |-- UnsafeCheckpointError           the file asks for code to be run; it was not
    |   |   `-- NonFiniteError                  NaN or Inf among the weights
    |   |-- TrajectoryError (ValueError)    the files are fine, their sequence is not
    |   |   |-- TooFewCheckpointsError          fewer than three
    |   |   |-- NoStepError                     no file name or record tells a training step
    |   |   |-- ZeroUpdatesError                all checkpoints are identical
    |   |   `-- ShapeChangeError                tensors changed shape, dtype or name
    |   |-- NotFoundError (LookupError)     no such experiment, run, folder, store
    |   |-- AccessDeniedError (PermissionError)  401, 403, or the file system said no
    |   |-- DiskFullError (OSError)         no room for the download or the tables
    |   |-- AnnotationConflictError         the run carries annotations of another audit
    |   |-- QuarantinedError                reading the run has killed the process again and again
    |   |-- StoreVersionError               the store was written by a newer spectral-edge
    |   `-- StoreError                      the store is damaged or not a store
    `-- TransientError                  the same call may succeed later; pipelines retry it
        |-- TrackerUnavailableError (ConnectionError)  no answer, 429, 5xx, a time-out
        |-- RunBusyError (TimeoutError)              another audit is writing to the run
        |-- FetchInterruptedError (ConnectionError)    a download ended early
        |-- StoreUnavailableError (ConnectionError)    the store's bucket did not answer
        |-- StoreLockedError (TimeoutError)            another audit is writing to the store
        `-- StoppedError                               SIGTERM or Ctrl-C; not tried again by the audit that was stopped

Each also inherits the builtin in brackets, so that callers may catch either.
"""

from __future__ import annotations

from typing import ClassVar


class SpectralEdgeError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: What happened, with what was got and what was expected.
        run: Name or id of the run concerned, as the tracker shows it.
        file: File, artifact or table concerned.
        tensor: Name of the tensor concerned.
        left_behind: What is left on disk or on the tracker, if anything.
        next_step: What the reader should do next; a command where there is one.
    """

    usual_step: ClassVar[str | None] = None
    """What to do about an error of this class that stopped a run, where the error itself says nothing."""

    def __init__(
        self,
        what: str,
        *,
        run: str | None = None,
        file: str | None = None,
        tensor: str | None = None,
        left_behind: str | None = None,
        next_step: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.run = run
        self.file = file
        self.tensor = tensor
        self.left_behind = left_behind
        self.next_step = next_step

    def __str__(self) -> str:
        where = ", ".join(
            f"{label} {value}"
            for label, value in (("run", self.run), ("file", self.file), ("tensor", self.tensor))
            if value is not None
        )
        parts = [f"{where}: {self.what}" if where else self.what]
        if self.left_behind:
            parts.append(f"Left behind: {self.left_behind}.")
        if self.next_step:
            parts.append(f"Next: {self.next_step}")
        return " ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are lost by the default reduction, and errors cross process borders.
        return (_rebuild, (type(self), self.what, self.details()))

    def details(self) -> dict[str, str | None]:
        """The keyword arguments this error was built with."""
        return {
            "run": self.run,
            "file": self.file,
            "tensor": self.tensor,
            "left_behind": self.left_behind,
            "next_step": self.next_step,
        }

    def of_run(self, run: str) -> SpectralEdgeError:
        """The same error, naming `run` when it named none, and what is usually done about it when it said nothing."""
        if self.run is None:
            self.run = run
        self.next_step = self.next_step or self.usual_step
        return self


def _rebuild(kind: type[SpectralEdgeError], what: str, details: dict[str, str | None]) -> SpectralEdgeError:
    return kind(what, **details)


class TerminalError(SpectralEdgeError):
    """Trying again without a change changes nothing."""


class TransientError(SpectralEdgeError):
    """The same call may succeed later."""


class UsageError(TerminalError, ValueError):
    """The request is wrong: an unknown source, a setting out of range, invalid SQL."""


class CheckpointError(TerminalError, ValueError):
    """One checkpoint file cannot be used."""


class CheckpointFormatError(CheckpointError):
    """The bytes are not a checkpoint of the format they claim."""

    usual_step = "compare its size with the original and log it again, or move it away; then run this command again."


class UnsafeCheckpointError(CheckpointError):
    """The file asks for code to be executed. Nothing was executed."""

    usual_step = "save weights with torch.save(model.state_dict(), ...) or as safetensors, or move the file away."


class NonFiniteError(CheckpointError):
    """NaN or Inf among the weights."""

    usual_step = "move away the checkpoints from that step on, to audit what came before."


class TrajectoryError(TerminalError, ValueError):
    """The checkpoints are readable, but do not form a trajectory that can be analysed."""


class TooFewCheckpointsError(TrajectoryError):
    """Fewer than three checkpoints: no window of two updates exists."""


class NoStepError(TrajectoryError):
    """The training step of a checkpoint cannot be told."""


class ZeroUpdatesError(TrajectoryError):
    """Nothing moved: all checkpoints are identical."""


class ShapeChangeError(TrajectoryError):
    """Tensors change shape, dtype or name within the run."""


class NotFoundError(TerminalError, LookupError):
    """No such experiment, run, folder or store."""


class AccessDeniedError(TerminalError, PermissionError):
    """Credentials are missing, wrong, or not enough."""


class DiskFullError(TerminalError, OSError):
    """No room left for downloads or tables."""


class AnnotationConflictError(TerminalError):
    """The run already carries annotations made with other settings."""


class QuarantinedError(TerminalError):
    """Audits of the run ended with the death of their process, too often to try once more."""


class StoreError(TerminalError):
    """The store is damaged, or not a store."""


class StoreVersionError(StoreError):
    """The store was written by a newer version of spectral-edge."""


class TrackerUnavailableError(TransientError, ConnectionError):
    """The tracker did not answer, or answered that it is busy or broken."""


class RunBusyError(TransientError, TimeoutError):
    """Another process is writing annotations to the run, or takes them back."""


class FetchInterruptedError(TransientError, ConnectionError):
    """A download ended before all bytes had come."""


class StoreUnavailableError(TransientError, ConnectionError):
    """The object storage that holds the store did not answer."""


class StoreLockedError(TransientError, TimeoutError):
    """Another process holds the store's write lock."""


class StoppedError(TransientError):
    """The process was asked to end while the run was being audited."""

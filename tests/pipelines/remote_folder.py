"""A folder that behaves as a server does: what is read of it has to be fetched first."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from integrations.folder_tracker import FolderTracker
from integrations.tracker import Capabilities, CheckpointRef, TrackedRun
from pipelines.fetching import PARALLEL_FETCHES
from spectral_edge.errors import FetchInterruptedError


class RemoteFolder(FolderTracker):
    """A folder whose files have to be copied, as those of a server: fails at `broken`, and counts copies at once."""

    capabilities = Capabilities(  # type: ignore[misc]  # final for folders
        local_checkpoints=False, writes_metrics=True, writes_files=True, overwrites_metrics=True
    )

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.fetched: list[str] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        self._all_at_work = threading.Barrier(PARALLEL_FETCHES)

    def fetch(self, run: TrackedRun, checkpoint: CheckpointRef, folder: Path) -> tuple[Path, ...]:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        if self.broken and self.broken in checkpoint.name:
            raise FetchInterruptedError("the download ended early.", run=run.key.run_name, file=checkpoint.name)
        copies = tuple(Path(shutil.copy(path, folder)) for path in super().fetch(run, checkpoint, folder))
        with self._lock:
            self.fetched.append(checkpoint.name)
            self.at_once -= 1
        return copies

    def wait_for_the_others(self) -> None:
        self._all_at_work.wait(10)

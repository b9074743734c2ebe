"""The real command line on files that kill who reads them: `python poisoned_tracker.py audit ...`.

As of the kernel when memory is short, nobody can catch the signal.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from integrations import folder_tracker
from integrations.folder_tracker import FolderTracker
from integrations.tracker import CheckpointRef, TrackedRun
from pipelines.cli import main


class PoisonedTracker(FolderTracker):
    """Hands over checkpoints, except those of a run that is called poison."""

    def fetch(self, run: TrackedRun, checkpoint: CheckpointRef, folder: Path) -> tuple[Path, ...]:
        if "poison" in run.key.run_name:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fetch(run, checkpoint, folder)


if __name__ == "__main__":
    folder_tracker.FolderTracker = PoisonedTracker  # type: ignore[misc]  # what locate makes for dir:PATH
    sys.argv[0] = "spectral-edge"
    main()

"""The real command line on a tracker that fails as each run's name says: `python faulty_tracker.py audit ...`."""

from __future__ import annotations

import sys
from collections import Counter

from integrations import folder_tracker
from integrations.folder_tracker import FolderTracker
from integrations.tracker import CheckpointListing, TrackedRun
from pipelines.cli import main
from spectral_edge.errors import AccessDeniedError, TrackerUnavailableError


class FaultyTracker(FolderTracker):
    """Lists checkpoints, except where the run's name speaks against it."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def checkpoints(self, run: TrackedRun, series: str | None = None) -> CheckpointListing:
        name = run.key.run_name
        self.asked[name] += 1
        if name == "always_busy" or (name == "busy_once" and self.asked[name] == 1):
            raise TrackerUnavailableError(f"answered 503 to question {self.asked[name]}.", run=name)
        if name == "refused":
            raise AccessDeniedError(f"answered 403 to question {self.asked[name]}.", run=name)
        if name == "defect":
            raise KeyError("a defect of ours")
        return super().checkpoints(run, series)


if __name__ == "__main__":
    folder_tracker.FolderTracker = FaultyTracker  # type: ignore[misc]  # what locate makes for dir:PATH
    sys.argv[0] = "spectral-edge"
    main()

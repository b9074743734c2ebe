"""How sources are written, and what a tracker's name stands for. Imports no tracker: every command reads settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from integrations.credentials import MlflowAccess, WandbAccess

SCHEMES: Final = {
    "mlflow": "mlflow:EXPERIMENT or mlflow:EXPERIMENT/RUN_ID",
    "wandb": "wandb:ENTITY/PROJECT or wandb:ENTITY/PROJECT/RUN_ID",
    "wandb-offline": "wandb-offline:PATH",
    "dir": "dir:PATH",
}
"""The known kinds of source and how each is written."""


@dataclass(frozen=True)
class Place:
    """A tracker that has a name: of which kind it is, who we are there, and what its sources leave out.

    Attributes:
        kind: One of `SCHEMES`.
        access: For servers.
        prefix: What stands before the source: the entity (W&B) of those that name none, or a folder.
    """

    kind: str
    access: MlflowAccess | WandbAccess | None = None
    prefix: str = ""

    def whole(self, rest: str) -> str:
        """What a source of the kind would say for `rest`."""
        if not self.prefix:
            return rest
        if self.kind == "wandb":
            return rest if "/" in rest else f"{self.prefix}/{rest}"
        return str(Path(self.prefix, rest))

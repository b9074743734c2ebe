"""The environment in which the real SDK talks to the double and touches nothing of the user's."""

from __future__ import annotations

from pathlib import Path

from .server import Server


def wandb_environment(home: Path, double: Server) -> dict[str, str]:
    """Variables for a process that uses wandb; all its folders are below `home`."""
    folders = {f"WANDB_{name}_DIR": home / name.lower() for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT")}
    folders["WANDB_DIR"] = home / "logs"
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    netrc = home / "netrc"
    netrc.touch(mode=0o600)
    return {
        **{name: str(folder) for name, folder in folders.items()},
        "NETRC": str(netrc),
        "WANDB_BASE_URL": double.url,
        "WANDB_API_KEY": double.key,
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
    }

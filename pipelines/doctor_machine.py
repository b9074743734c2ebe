"""What `doctor` finds on this machine: packages, GPU, Prefect and the disk for downloads. Nothing is written."""

from __future__ import annotations

import os
import platform
import shutil
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Final

import httpx
import torch
from packaging.requirements import Requirement

from integrations.file_examine import folder_finding
from integrations.finding import Finding
from integrations.http_errors import without_secrets
from pipelines.settings import AuditSettings
from pipelines.wording import size_text

_EXTRAS: Final = ("s3", "wandb", "postgres")
_ANSWER_SECONDS: Final = 5.0


def machine_findings(settings: AuditSettings) -> Iterator[Finding]:
    """Of Python, packages, GPU, Prefect and disk."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield from _versions()
    yield _device(settings)
    yield from _prefect()
    yield _disk(settings)


def _versions() -> Iterator[Finding]:
    """Installed versions against the ranges that spectral-edge declares; combinations known to fail are outside."""
    declared = [Requirement(text) for text in requires("spectral-edge") or []]
    for requirement in declared:
        marker = requirement.marker
        is_needed = marker is None or marker.evaluate({"extra": ""})
        if not is_needed and not any(marker is not None and marker.evaluate({"extra": extra}) for extra in _EXTRAS):
            continue
        needed = f'pip install "{requirement.name}{requirement.specifier}"'
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            if is_needed:
                yield Finding(requirement.name, "problem", f"not installed, need {requirement.specifier}.", needed)
            continue
        if requirement.specifier.contains(installed, prereleases=True):
            yield Finding(requirement.name, "ok", installed)
        else:
            seen = f"{installed} is installed, need {requirement.specifier}."
            yield Finding(requirement.name, "problem", seen, needed)


def _device(settings: AuditSettings) -> Finding:
    if not torch.cuda.is_available():
        is_well = settings.device != "cuda"
        seen = f"no CUDA in torch {torch.__version__}: audits run on the CPU with {torch.get_num_threads()} threads."
        return Finding("device", "ok" if is_well else "problem", seen, "" if is_well else "set `device` to auto.")
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return Finding("device", "ok", f"CUDA {torch.version.cuda}: {names}")


def _prefect() -> Iterator[Finding]:
    """The server that flows are recorded on. Prefect itself is not imported: that takes longer than all else here."""
    address, place = _prefect_server()
    if address is None:
        yield Finding("prefect", "ok", "a temporary server is started for each audit.")
        home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
        yield folder_finding("prefect home", home)
        return
    shown = without_secrets(address)
    try:
        answer = httpx.get(f"{address.rstrip('/')}/health", timeout=_ANSWER_SECONDS)
        told = httpx.get(f"{address.rstrip('/')}/admin/version", timeout=_ANSWER_SECONDS)
    except httpx.HTTPError as error:
        seen = f"{place} is {shown}, which did not answer ({type(error).__name__})."
        yield Finding("prefect", "problem", seen, f"start that server, or unset {place}.")
        return
    if not answer.is_success:
        yield Finding("prefect", "problem", f"{shown} answered {answer.status_code}.", f"check {place}.")
        return
    yield Finding("prefect", "ok", f"{shown} answered {answer.status_code}.")
    here, there = version("prefect"), told.text.strip('" \n') if told.is_success else ""
    if there and there.split(".")[:2] != here.split(".")[:2]:
        yield Finding("prefect version", "warning", f"server {there}, client {here}.", f"pip install prefect=={there}")


def _prefect_server() -> tuple[str | None, str]:
    """Address of the server that is configured, and where; the address is None where there is none."""
    if address := os.environ.get("PREFECT_API_URL"):
        return address, "PREFECT_API_URL"
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    try:
        told: dict[str, Any] = tomllib.loads((home / "profiles.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return None, ""
    name = os.environ.get("PREFECT_PROFILE") or told.get("active", "")
    address = told.get("profiles", {}).get(name, {}).get("PREFECT_API_URL")
    return address, f"PREFECT_API_URL of profile {name}"


def _disk(settings: AuditSettings) -> Finding:
    spool = settings.spool.absolute()
    place = next(folder for folder in (spool, *spool.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    seen = f"{size_text(free)} free for downloads below {place}, `max_disk` is {size_text(settings.max_disk)}."
    if free < settings.max_disk:
        return Finding("disk", "problem", seen, "free some room, or change `spool` or `max_disk`.")
    writable = folder_finding("disk", place)
    return writable if writable.level != "ok" else Finding("disk", "ok", seen)

"""An optional metrics file in a run's folder: CSV or JSON lines with a column of training steps.

A row that cannot be read is left out and named; a value that is no number is never replaced by one.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from integrations.file_errors import file_errors
from spectral_edge.series import MetricSeries
from spectral_edge.training_log import METRICS_FILES, STEP_COLUMNS

_NAMED_ROWS: Final = 3
"""Broken rows named one by one in the warnings; the others are counted."""

Row = Mapping[str, object]


@dataclass(frozen=True)
class FolderMetrics:
    """The metrics of one run's folder, by name, and what could not be read."""

    series: Mapping[str, MetricSeries] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Rows:
    """Rows by line number, and the lines that could not be read with the reason."""

    rows: tuple[tuple[int, Row], ...]
    broken: tuple[tuple[int, str], ...]


def folder_metrics(folder: Path) -> FolderMetrics:
    """The metrics in `folder`; empty when it has no metrics file.

    Raises:
        AccessDeniedError: The file may not be read.
    """
    path = next((folder / name for name in METRICS_FILES if (folder / name).is_file()), None)
    if path is None:
        return FolderMetrics()
    with file_errors(file=str(path)):
        status = path.stat()
        return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)  # asked for once a metric; the file's time and size are part of the key
def _read(path: Path, _mtime_ns: int, _size: int) -> FolderMetrics:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        return FolderMetrics(warnings=(f"{path.name} is not UTF-8 text ({error.reason} at byte {error.start}).",))
    read: Callable[[str], _Rows] = _csv_rows if path.suffix == ".csv" else _json_rows
    found = read(text)
    columns = dict.fromkeys(name for _, row in found.rows for name in row)
    step_column = next((name for name in STEP_COLUMNS if name in columns), None)
    if step_column is None:
        listed = ", ".join(repr(name) for name in list(columns)[:12]) or "none"
        wanted = ", ".join(STEP_COLUMNS)
        return FolderMetrics(warnings=(f"{path.name} has no column of steps ({wanted}); its columns: {listed}.",))
    return _by_column(path.name, found, step_column)


def _by_column(name: str, found: _Rows, step_column: str) -> FolderMetrics:
    broken = dict(found.broken)
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    odd: dict[str, int] = {}
    for line, row in found.rows:
        step = _whole(row.get(step_column))
        if step is None:
            broken[line] = f"{step_column} is {row.get(step_column)!r}, not a whole number"
            continue
        for column, cell in row.items():
            value = _number(cell)
            if value is not None:
                points[column].append((step, value))
            elif cell not in (None, ""):
                odd.setdefault(column, line)
    # A column without any number is text (a phase, a time); in a column of numbers a word is an error to be told.
    broken |= {line: f"{column} is not a number" for column, line in odd.items() if column in points}
    series = {
        column: MetricSeries.from_points(column, [step for step, _ in values], [value for _, value in values])
        for column, values in points.items()
        if column not in STEP_COLUMNS
    }
    return FolderMetrics(series, tuple(_sentences(name, broken)))


def _sentences(name: str, broken: Mapping[int, str]) -> Iterator[str]:
    for line in sorted(broken)[:_NAMED_ROWS]:
        yield f"{name}, line {line}: {broken[line]}; left out."
    if len(broken) > _NAMED_ROWS:
        yield f"{name}: {len(broken) - _NAMED_ROWS} more lines left out."


def _csv_rows(text: str) -> _Rows:
    reader = csv.reader(io.StringIO(text))
    rows: list[tuple[int, Row]] = []
    broken: list[tuple[int, str]] = []
    header: list[str] | None = None
    try:
        for cells in reader:
            if header is None:
                header = [cell.strip() for cell in cells]
            elif len(cells) == len(header):
                rows.append((reader.line_num, dict(zip(header, cells, strict=True))))
            elif cells:
                broken.append((reader.line_num, f"{len(cells)} fields, the header has {len(header)}"))
    except csv.Error as error:
        broken.append((reader.line_num, f"{error}; nothing after this line was read"))
    return _Rows(tuple(rows), tuple(broken))


def _json_rows(text: str) -> _Rows:
    rows: list[tuple[int, Row]] = []
    broken: list[tuple[int, str]] = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            broken.append((line, f"not JSON ({error})"))
            continue
        if isinstance(row, dict):
            rows.append((line, row))
        else:
            broken.append((line, "not a JSON object"))
    return _Rows(tuple(rows), tuple(broken))


def _number(cell: object) -> float | None:
    """The number in `cell`; NaN counts as one (the series drops it), a truth value does not."""
    if isinstance(cell, bool) or not isinstance(cell, (str, int, float)):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None


def _whole(cell: object) -> int | None:
    value = _number(cell)
    return (
        int(value)
        if value is not None and math.isfinite(value) and value == int(value) and abs(value) < 2**62
        else None
    )

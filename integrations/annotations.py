"""One analysis in the words that every tracker gets: tags, metrics, files, and a note of plain sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from integrations.annotation_note import note_of
from integrations.tracker import OUR_NAME, Annotation, Level, MetricPoint
from spectral_edge.report import png_of, run_chart_html, run_chart_svg
from spectral_edge.tables import RunTables

METRIC_QUANTITIES: Final = (
    "k_star",
    "gap",
    "gap_ratio",
    "singular_values/1",
    "singular_values/2",
    "singular_values/3",
    "overlap/1",
    "rotation_degrees",
    "gram_change_relative",
    "adiabatic_relative",
    "effective_rank",
    "update_norm",
    "drift",
)
"""Columns of table gaps that become metrics, with the place in the list for columns that are lists (1 is the first).

Only full windows are written: a chart would join the short ones at the start of a run to them without a mark.
"""

TAG_COLUMNS: Final = (
    "status",
    "regime",
    "transitions",
    "checkpoints",
    "windows",
    "sketch_size",
    "audit_id",
    "fingerprint",
    "settings_hash",
    "schema_version",
    "versions",
    "error",
)
"""Columns of table runs that become tags; null ones are left out. Times are not among them: an audit of the same
checkpoints with the same settings writes the same tags."""

_MAX_TAG: Final = 2000  # below the shortest limit of the trackers, so that none cuts a tag silently


def annotation_of(tables: RunTables, *, level: Level) -> Annotation:
    """What to write on the run that `tables` describe.

    Args:
        tables: One audit of one run.
        level: "full" writes all; "summary" the tags and the note alone.
    """
    row = tables.summary
    complete = level == "full" and tables.gaps.num_rows > 0
    return Annotation(
        fingerprint=row["fingerprint"],
        settings_hash=row["settings_hash"],
        tags={f"{OUR_NAME}.{name}": _tag(row[name]) for name in TAG_COLUMNS if row[name] is not None},
        note=note_of(tables),
        metrics=tuple(_points(tables.gaps)) if complete else (),
        files=_files(tables) if complete else {},
        level=level,
        audit_id=tables.audit_id,
    )


def _tag(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MAX_TAG else f"{text[: _MAX_TAG - 2]} …"


def _points(gaps: pa.Table) -> Iterator[MetricPoint]:
    for row in gaps.to_pylist():
        if row["short"]:
            continue
        for quantity in METRIC_QUANTITIES:
            value = _value(row, quantity)
            if value is not None and math.isfinite(value):
                # One slash less: MLflow makes a section of charts for all that stands before a key's last slash.
                yield MetricPoint(f"{OUR_NAME}/{row['group']}/{quantity.replace('/', '_')}", row["step"], value)


def _value(row: Mapping[str, Any], quantity: str) -> float | None:
    column, _, place = quantity.partition("/")
    value = row[column]
    if place and value is not None:
        value = value[int(place) - 1] if len(value) >= int(place) else None
    return None if value is None else float(value)


def _files(tables: RunTables) -> dict[str, bytes]:
    svg = run_chart_svg(tables)
    return {
        "gaps.parquet": _parquet(tables.gaps),
        "spectrum.svg": svg.encode(),
        "spectrum.png": png_of(svg),
        "spectrum.html": run_chart_html(tables).encode(),
    }


def _parquet(table: pa.Table) -> bytes:
    """The table as Parquet; the same rows give the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())

"""The audited runs of a store as a list, and one of them by what people call it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from spectral_edge.audited_run import AuditedRun
from spectral_edge.errors import NotFoundError, UsageError
from spectral_edge.run_texts import cell_text, named, table_text
from spectral_edge.tables import RunKey

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

SHOWN: Final = 40
"""Runs that the list shows of itself; the last ones audited."""
_COLUMNS: Final = ("project", "run_name", "status", "checkpoints", "regime", "transitions", "audited_at", "run_id")
_NEAR: Final = 5

Row = Mapping[str, Any]


@dataclass(frozen=True, repr=False, eq=False)
class RunList(Sequence[AuditedRun]):
    """Audited runs, by project and name. A run's tables are read when it is asked for.

    :meth:`spectral_edge.Store.runs` gives it: `for run in store.runs("my-project")`, `store.runs()[0]`.

    Attributes:
        table: Their rows of table `runs`, an Arrow table.
    """

    table: pa.Table
    _read: Callable[[RunKey], AuditedRun] = field(repr=False)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return RunList(self.table.take(list(range(len(self)))[index]), self._read)
        position = range(len(self))[index]
        return self._read(key_of(self.table.slice(position, 1).to_pylist()[0]))

    def __iter__(self) -> Iterator[AuditedRun]:
        return (self[position] for position in range(len(self)))

    def to_pandas(self) -> pd.DataFrame:
        """Table `runs` of them as a pandas data frame."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    def to_polars(self) -> pl.DataFrame:
        """The same for Polars, which must be installed."""
        import polars  # noqa: ICN001, PLC0415 - not among what this package needs

        return polars.DataFrame(self.table)

    def __repr__(self) -> str:
        lines = (self._title, table_text(_COLUMNS, self._rows()), self._more)
        return "\n".join(line for line in lines if line)

    def _repr_html_(self) -> str:
        from spectral_edge.report.notebook import runs_html  # noqa: PLC0415 - charts take a second to import

        rows = [[cell_text(cell) for cell in row] for row in self._rows()]
        return runs_html(self._title, _COLUMNS, rows, self._more)

    @property
    def _title(self) -> str:
        return f"{len(self)} audited {'run' if len(self) == 1 else 'runs'}"

    @property
    def _more(self) -> str:
        return f"and {len(self) - SHOWN} more; .to_pandas() has all" if len(self) > SHOWN else ""

    def _rows(self) -> list[list[Any]]:
        rows = self.table.slice(0, SHOWN).select(list(_COLUMNS)).to_pylist()
        return [[_short(row[name]) for name in _COLUMNS] for row in rows]


def select_runs(
    table: pa.Table, project: str | None, since: dt.datetime | dt.timedelta | None, now: dt.datetime
) -> pa.Table:
    """Rows of table `runs` that are meant, by project, name and id.

    Args:
        table: Table `runs`.
        project: A name, or a pattern with `*`; any when None.
        since: Audited then or later; or so long ago at most.
        now: The time.

    Raises:
        NotFoundError: No run is of that project.
        UsageError: `since` is a time without a zone.
    """
    if isinstance(since, dt.datetime) and since.tzinfo is None:
        raise UsageError(f"`since` needs a time zone, got {since.isoformat()}.", next_step="or give a timedelta.")
    earliest = now - since if isinstance(since, dt.timedelta) else since
    rows = table.select(["project", "run_name", "run_id", "audited_at"]).to_pylist()
    meant = [index for index, row in enumerate(rows) if project is None or _is_of(row, project)]
    if project is not None and not meant:
        names = sorted({row["project"] for row in rows})
        raise NotFoundError(f"no audited run is of project {project!r}.", next_step=_near(project, names, "projects"))
    late = [i for i in meant if earliest is None or (rows[i]["audited_at"] or earliest) >= earliest]
    late.sort(key=lambda i: (rows[i]["project"], rows[i]["run_name"] or "", rows[i]["run_id"]))
    return table.take(pa.array(late, pa.int64()))


def find_run(rows: Sequence[Row], asked: str, project: str | None) -> RunKey:
    """The one run that `asked` means: by its id, else by its name, else by the beginning of its id.

    Args:
        rows: The key columns of table `runs`.
        asked: What was asked for.
        project: Its project, or a pattern with `*`; any when None.

    Raises:
        NotFoundError: None is meant; the message tells what there is that looks like it.
        UsageError: Several are meant; the message lists them.
    """
    within = [row for row in rows if project is None or _is_of(row, project)]
    ways: tuple[Callable[[Row], bool], ...] = (
        lambda row: row["run_id"] == asked,
        lambda row: row["run_name"] == asked,
        lambda row: bool(asked) and row["run_id"].startswith(asked),
    )
    for way in ways:
        meant = [row for row in within if way(row)]
        if len(meant) == 1:
            return key_of(meant[0])
        if meant:
            listed = "; ".join(named(row) for row in meant[:_NEAR])
            more = f"; and {len(meant) - _NEAR} more" if len(meant) > _NEAR else ""
            raise UsageError(
                f"{asked!r} may be any of {len(meant)} runs: {listed}{more}.",
                next_step="give its whole id, or its `project`.",
            )
    where = "" if project is None else f" of project {project!r}"
    names = {name: None for row in within for name in (row["run_name"], row["run_id"]) if name}
    raise NotFoundError(f"there is no audited run {asked!r}{where}.", next_step=_near(asked, list(names), "runs"))


def key_of(row: Row) -> RunKey:
    """What identifies the run that a row is of."""
    return RunKey(row["tracker"], row["project"], row["run_id"], row["run_name"])


def _is_of(row: Row, project: str) -> bool:
    return row["project"] == project or fnmatchcase(row["project"], project)


def _near(asked: str, names: Sequence[str], what: str) -> str:
    if not names:
        return "audit some: spectral-edge audit SOURCE"
    alike = get_close_matches(asked, names, n=_NEAR, cutoff=0.5)
    alike += [name for name in names if asked and asked.lower() in name.lower() and name not in alike]
    shown = alike[:_NEAR] or names[:_NEAR]
    listed = ", ".join(repr(name) for name in shown)
    return f"did you mean {listed}?" if alike else f"name one of the {what} there are, as {listed}."


def _short(value: Any) -> Any:
    return value.strftime("%Y-%m-%d %H:%M") if isinstance(value, dt.datetime) else value

"""One audited run in Python, whether it comes from a folder of checkpoints or from a store."""

from __future__ import annotations

from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from spectral_edge.errors import UsageError
from spectral_edge.tables import SCHEMAS, RunKey, RunTables

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from spectral_edge.report.run_chart import RunChart

_OF_THE_AUDIT: Final = ("audit_id", "settings_hash", "schema_version")


@dataclass(frozen=True, repr=False, eq=False)
class AuditedRun(RunTables):
    """What an audit says of one run: its tables, the verdict, and the picture.

    :func:`spectral_edge.analyse` and :meth:`spectral_edge.Store.run` give it. In a notebook it shows the verdict with
    its error rate, the chart, the changes with the intervals of their onsets, the regimes, and what was not possible.

    The tables are Arrow tables with the columns of docs/tables.md: `gaps`, `transitions`, `runs` (one row),
    `inner_products`, `scorecard`.

    Examples:
        >>> run = Store.open("spectral-edge-store").run("small-network")
        >>> run.groups
        ('total', 'mlp', 'embedding', 'layer.0')
        >>> run.verdict.split(" (")[0]
        'The spectrum of group total changed at step 1,600'
        >>> len(run.to_pandas())
        276
        >>> run.save("small-network.svg", "mlp").name
        'small-network.svg'
    """

    @classmethod
    def of(cls, tables: RunTables) -> AuditedRun:
        """The same run with all that is here."""
        return cls(**{one.name: getattr(tables, one.name) for one in fields(RunTables)})

    @property
    def name(self) -> str:
        """The run's name, as people see it."""
        return self.key.run_name

    @property
    def verdict(self) -> str:
        """What the audit established, in one sentence, and how often it would say so of a run without a change."""
        from spectral_edge.report.verdict import verdict  # noqa: PLC0415 - charts take a second to import

        return verdict(self.summary, self.transitions.to_pylist())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was left out or looks odd, and what to log for a verdict next time; one sentence each."""
        return tuple(self.summary["warnings"] or ())

    @property
    def groups(self) -> tuple[str, ...]:
        """The parameter groups that have windows, `total` first."""
        from spectral_edge.report.drawn import group_order  # noqa: PLC0415 - as above

        return tuple(group_order(name for name in self.gaps.column("group").unique().to_pylist() if name is not None))

    def to_pandas(self, table: str = "gaps", *, keys: bool = False) -> pd.DataFrame:
        """One of the tables as a pandas data frame.

        Args:
            table: `gaps`, `transitions`, `runs`, `inner_products` or `scorecard`.
            keys: Whether the columns that name the run and its audit, the same in all rows, are kept: to put frames
                of several runs together.

        Raises:
            UsageError: There is no such table.
        """
        frame: pd.DataFrame = self._table(table, keys=keys).to_pandas()
        return frame

    def to_polars(self, table: str = "gaps", *, keys: bool = False) -> pl.DataFrame:
        """One of the tables as a Polars data frame; the same as :meth:`to_pandas`. Polars must be installed."""
        import polars  # noqa: ICN001, PLC0415 - not among what this package needs

        return polars.DataFrame(self._table(table, keys=keys))

    def plot(self, group: str | None = None) -> RunChart:
        """The chart of one parameter group, by training step: an Altair chart.

        In JupyterLab, Notebook 7 and VS Code it answers the pointer, without a network: drag in the strip on top to
        look at a part of the run. Elsewhere it is an image.

        Args:
            group: One of :attr:`groups`; when None, that of the change which the verdict names, else `total`.

        Raises:
            UsageError: The run has no such group; the message lists those it has.
        """
        from spectral_edge.report.run_chart import run_chart  # noqa: PLC0415 - as above

        return run_chart(self, group)

    def save(self, path: str | Path, group: str | None = None) -> Path:
        """Write the run to a file that needs nothing else: a page (`.html`) or its chart (`.png`, `.svg`).

        Args:
            path: The file; what was there is replaced, whole or not at all.
            group: The parameter group of an image; when None, as for :meth:`plot`. A page has all.

        Returns:
            `path`.

        Raises:
            UsageError: `path` ends in none of the three, or the run has no such group.
            AccessDeniedError: The file system refuses.
            DiskFullError: No room.
        """
        from spectral_edge.report import run_chart_html, run_chart_png, run_chart_svg  # noqa: PLC0415 - as above
        from spectral_edge.report.atomic import write_atomically  # noqa: PLC0415 - as above

        output = Path(path)
        match output.suffix.lower():
            case ".html":
                write_atomically(run_chart_html(self), output)
            case ".png":
                write_atomically(run_chart_png(self, group), output)
            case ".svg":
                write_atomically(run_chart_svg(self, group), output)
            case _:
                raise UsageError(f"`path` must end in .html, .png or .svg, got {str(path)!r}.")
        return output

    def __repr__(self) -> str:
        from spectral_edge.run_texts import run_text  # noqa: PLC0415 - as above

        return run_text(self, self.verdict)

    def _repr_html_(self) -> str:
        from spectral_edge.report.notebook import run_html  # noqa: PLC0415 - as above

        return run_html(self)

    def _table(self, name: str, *, keys: bool) -> pa.Table:
        if name not in SCHEMAS:
            near = get_close_matches(name, SCHEMAS, n=1)
            raise UsageError(
                f"there is no table {name!r}; there are: {', '.join(SCHEMAS)}.",
                next_step=f"did you mean {near[0]!r}?" if near else None,
            )
        table: pa.Table = getattr(self, name)
        if keys:
            return table
        return table.drop_columns([*RunKey.columns(self.key), *_OF_THE_AUDIT] if name != "runs" else [])

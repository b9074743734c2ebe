"""The rows of a table that committed audits own, as a lazy Arrow dataset that opens few files for few runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds

from spectral_edge import delta
from spectral_edge.store_location import StoreLocation
from spectral_edge.store_rows import Identity, identity_text, joined


class VisibleRows(pds.FileSystemDataset):  # type: ignore[misc]  # pyarrow has no types
    """Those rows of some files of a table that committed audits own.

    The log tells which files of a project may hold a run. Which project it is of, only the audits tell: ids of runs
    look alike in all projects, so one that is asked for by its id alone might be in a file of each.

    Args:
        location: The store.
        files: Files of `table`.
        table: Name of the table.
        committed: The audits.
        where: What is true of the rows besides; None when nothing is asked.
    """

    def __init__(
        self,
        location: StoreLocation,
        files: Sequence[delta.DataFile],
        table: str,
        committed: Collection[Identity],
        where: pc.Expression | None = None,
    ) -> None:
        known = delta.dataset_of(location, files, table)
        super().__init__(list(known.get_fragments()), known.schema, known.format, known.filesystem)
        self._location, self._files, self._table = location, files, table
        self._committed, self._where = committed, where

    def filter(self, expression: pc.Expression) -> VisibleRows:
        """Those of the rows for which `expression` is true, lazily."""
        return VisibleRows(self._location, self._files, self._table, self._committed, _both(self._where, expression))

    def scanner(self, columns: Any = None, filter: pc.Expression | None = None, **options: Any) -> pds.Scanner:  # noqa: A002 - pyarrow's name
        """As that of any dataset; whatever reads one goes by it, DuckDB too."""
        where = _both(self._where, filter)
        files, committed = self._files, self._committed
        if where is not None and files and "run_id" in str(where):
            committed = self._may_satisfy(where)
            runs = defaultdict(list)
            for _, tracker, project_key, _, run_id in committed:
                runs[tracker, project_key].append(run_id)
            files = [it for it in files if any(map(it.may_hold, runs[it.tracker, it.project_key]))]
        visible = identity_text().isin(pa.array(map(joined, committed), pa.string()))
        found = delta.dataset_of(self._location, files, self._table)
        return found.scanner(columns=columns, filter=_both(visible, where), **options)

    def _may_satisfy(self, where: pc.Expression) -> list[Identity]:
        """The audits of which a row may satisfy `where`.

        Arrow tells: it drops a fragment of which it is known that no row can. These fragments are of no file, one for
        each audit, and all that is known is whose rows it would be.
        """
        by_name = {str(number): identity for number, identity in enumerate(self._committed)}
        fragments = [
            self.format.make_fragment(
                name,
                self.filesystem,
                (pc.field("tracker") == pa.scalar(tracker))
                & (pc.field("project_key") == pa.scalar(project_key))
                & (pc.field("run_id") == pa.scalar(run_id)),
            )
            for name, (_, tracker, project_key, _, run_id) in by_name.items()
        ]
        audits = pds.FileSystemDataset(fragments, self.schema, self.format, self.filesystem)
        return [by_name[fragment.path] for fragment in audits.get_fragments(filter=where)]


def _both(one: pc.Expression | None, other: pc.Expression | None) -> pc.Expression | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other

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
            files, committed = self._may_satisfy(where)
        visible = identity_text().isin(pa.array(map(joined, committed), pa.string()))
        found = delta.dataset_of(self._location, files, self._table)
        return found.scanner(columns=columns, filter=_both(visible, where), **options)

    def _may_satisfy(self, where: pc.Expression) -> tuple[list[delta.DataFile], list[Identity]]:
        """The files and the audits of which a row may satisfy `where`.

        Arrow tells: it drops a fragment of which it is known that no row can. To ask it about runs, there is a fragment
        for each, which is of no file, and all that is known is whose rows it would be.
        """
        possible = {fragment.path for fragment in self.get_fragments(filter=where)}
        files = [file for file in self._files if f"{self._table}/{file.path}" in possible]
        places = {(file.tracker, file.project_key) for file in files}
        runs = sorted({run_id for _, *place, _, run_id in self._committed if tuple(place) in places})
        fragments = [
            self.format.make_fragment(str(number), self.filesystem, pc.field("run_id") == pa.scalar(run_id))
            for number, run_id in enumerate(runs)
        ]
        asked = pds.FileSystemDataset(fragments, self.schema, self.format, self.filesystem)
        wanted = {runs[int(fragment.path)] for fragment in asked.get_fragments(filter=where)}
        by_place = defaultdict(list)
        for identity in self._committed:
            if identity[4] in wanted:
                by_place[identity[1], identity[2]].append(identity)
        files = [
            file
            for file in files
            if any(file.may_hold(identity[4]) for identity in by_place[file.tracker, file.project_key])
        ]
        return files, [identity for place in by_place.values() for identity in place]


def _both(one: pc.Expression | None, other: pc.Expression | None) -> pc.Expression | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other

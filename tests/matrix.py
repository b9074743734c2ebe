"""Tables of what the tests cover: `@pytest.mark.matrix(table, row, column)` on a test, or on one of its parameters.

The test run prints the tables with what passed. `python -m tests.matrix` writes them into docs/mlflow.md, where each
has a place: `<!-- matrix:table -->` and `<!-- matrix:end -->` on lines of their own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "mlflow.md"
OPTION = "--matrix"
PROPERTY = "matrix"
PASSED, FAILED, NOT_RUN = "✓", "✗", "?"

Cell = tuple[str, str, str]
"""Table, row, column."""


class Recorder:
    """Sees which cells the collected tests cover, and how these tests end.

    What a test covers travels with its report, as another process may have collected and run it.
    """

    def __init__(self, *, only_collects: bool) -> None:
        self._places: dict[Cell, int] = {}
        self._outcomes: dict[Cell, str] = {}
        self._only_collects = only_collects
        self.files: set[Path] = set()
        """The files whose tests were collected."""

    @pytest.hookimpl(tryfirst=True)  # before tests are deselected
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            self.files.add(item.path)
            for mark in item.iter_markers("matrix"):
                table, row, column = map(str, mark.args)
                cell = table, row, column
                place = self._places.setdefault(cell, len(self._places))
                item.user_properties.append((PROPERTY, [place, *cell]))
                self._outcomes[cell] = PASSED if self._only_collects else NOT_RUN

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name != PROPERTY:
                continue
            place, table, row, column = value
            cell = table, row, column
            self._places[cell] = place
            if report.failed:
                self._outcomes[cell] = FAILED
            elif report.when == "call" and report.passed and self._outcomes.get(cell) != FAILED:
                self._outcomes[cell] = PASSED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(_printed(self._in_order(self._outcomes)))

    def covered(self) -> str:
        """The tables, as if all tests had passed."""
        return _printed(self._in_order(dict.fromkeys(self._places, PASSED)))

    def _in_order(self, outcomes: Mapping[Cell, str]) -> dict[Cell, str]:
        return {cell: outcomes[cell] for cell in sorted(outcomes, key=self._places.__getitem__)}


def _printed(outcomes: Mapping[Cell, str]) -> str:
    tables = {table: _table(table, outcomes) for table in _unique(table for table, _, _ in outcomes)}
    return "".join(f"\n<!-- matrix:{table} -->\n{text}<!-- matrix:end -->\n" for table, text in tables.items())


def _table(table: str, outcomes: Mapping[Cell, str]) -> str:
    cells = {(row, column): outcome for (name, row, column), outcome in outcomes.items() if name == table}
    rows, columns = _unique(row for row, _ in cells), _unique(column for _, column in cells)
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    lines += [[row, *(cells.get((row, column), "") for column in columns)] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def page(text: str, printed: str) -> str:
    """`text` of the page with the tables that pytest `printed` in the places that are marked for them.

    Raises:
        ValueError: A table has no place on the page, or a place has no table.
    """
    found = dict(re.findall(r"<!-- matrix:(\w+) -->\n(.*?)<!-- matrix:end -->", printed, flags=re.DOTALL))
    places = re.findall(r"<!-- matrix:(?!end )(\w+) -->\n", text)
    if sorted(found) != sorted(places) or not found:
        raise ValueError(f"the tests have the tables {sorted(found)}, the page has places for {sorted(places)}")
    for table, rows in found.items():
        place = rf"(<!-- matrix:{table} -->\n).*?(<!-- matrix:end -->)"
        text = re.sub(place, lambda match, rows=rows: match[1] + rows + match[2], text, flags=re.DOTALL)
    return text


def files() -> set[Path]:
    """The files with tests that cover cells."""
    return {path for path in TESTS.rglob("test_*.py") if "mark.matrix(" in path.read_text()}


def collected() -> str:
    """The tables, from a collection of those files in a process of its own.

    Raises:
        subprocess.CalledProcessError: The tests cannot be collected.
    """
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", OPTION, *map(str, sorted(files()))]
    return subprocess.run(command, cwd=TESTS.parent, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), collected()))

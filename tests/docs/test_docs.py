"""The documentation says what the code says: generated pages, links, names of errors, SQL."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matrix
import pytest

from spectral_edge.errors import SpectralEdgeError, TerminalError, TransientError
from spectral_edge.query import query
from spectral_edge.store import Store
from tests.contract.layouts import matrix as matrix_of_layouts

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BRANCHES = {SpectralEdgeError, TerminalError, TransientError}


def test_the_reference_pages_are_what_the_code_says() -> None:
    command = [sys.executable, "tools/reference.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), f"run `make reference`. {done.stderr}"


def test_the_page_on_mlflow_lists_what_the_tests_cover(pytestconfig: pytest.Config) -> None:
    recorder = pytestconfig.pluginmanager.get_plugin("matrix")
    assert isinstance(recorder, matrix.Recorder)
    tables = recorder.covered() if matrix.files() <= recorder.files else matrix.collected()
    text = matrix.PAGE.read_text()
    assert matrix.page(text, tables) == text, "run `python -m tests.matrix`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page.read_text()):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(linked.read_text()), f"{target} names no heading"


def links(text: str) -> Iterator[str]:
    """Targets of the links and pictures in Markdown that lie in this repository."""
    prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    for target in re.findall(r"\]\(<?([^)>\s]+)>?\)", prose) + re.findall(r"src=\"([^\"]+)\"", prose):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(text: str) -> set[str]:
    """What headings are called in links."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_on_the_map() -> None:
    on_the_map = set(links((ROOT / "docs/index.md").read_text()))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} <= on_the_map


def test_troubleshooting_tells_what_to_do_about_every_error() -> None:
    told = set(re.findall(r"^- \*\*(\w+)\*\*:", (ROOT / "docs/troubleshooting.md").read_text(), flags=re.MULTILINE))
    abstract = {kind for kind in classes(SpectralEdgeError) if kind.__name__ == "CheckpointError"}
    # Classes that a module derives for itself are caught there, or are told as the class that they are derived from.
    ours = {kind for kind in classes(SpectralEdgeError) if kind.__module__ == SpectralEdgeError.__module__}
    assert told == {kind.__name__ for kind in ours - BRANCHES - abstract}


def classes(base: type[SpectralEdgeError]) -> set[type[SpectralEdgeError]]:
    """`base` and all that inherit from it."""
    return {base}.union(*(classes(kind) for kind in base.__subclasses__()))


def test_the_matrix_of_layouts_is_that_of_the_tests() -> None:
    page = (ROOT / "docs/checkpoint-layouts.md").read_text()
    table = "".join(line for line in page.splitlines(keepends=True) if line.startswith("|"))
    assert table == f"{matrix_of_layouts()}\n", f"write into the page:\n{matrix_of_layouts()}"


def test_sql_in_the_documentation_is_answered(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    examples = [sql for page in PAGES for sql in re.findall(r"```sql\n(.*?)```", page.read_text(), flags=re.DOTALL)]
    assert examples
    for sql in examples:
        assert query(store, sql).num_rows == 0, sql

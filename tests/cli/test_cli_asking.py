"""What is hard to undo asks on a terminal, and wants --yes without one."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from terminals import Terminal, Typed

from spectral_edge.store import Store
from tests.json_documents import require_schema
from tests.store.audits import audit, key_of

REPORT = ("report", "--store", "empty")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a store of one run, an empty one, and another store with a later audit of it and with one more run."""
    Store.open(tmp_path / "spectral-edge-store").write_run(audit(key_of("one")))
    later = audit(key_of("one"), settings_hash="another")
    at = later.runs.schema.get_field_index("audited_at")
    field = later.runs.schema.field(at)
    moved = pa.array([dt.datetime(2027, 1, 1, tzinfo=dt.UTC)], field.type)
    Store.open(tmp_path / "empty")
    other = Store.open(tmp_path / "other")
    other.write_run(replace(later, runs=later.runs.set_column(at, field, moved)))
    other.write_run(audit(key_of("two")))
    return tmp_path


def test_a_file_that_is_no_report_is_replaced_only_after_a_yes(folder: Path, typed: Typed) -> None:
    thesis = folder / "thesis.html"
    thesis.write_text("<title>My thesis</title>")
    refused = typed(folder, *REPORT, "--output", "thesis.html")
    assert (refused.code, refused.out) == (2, "")
    assert "name another file with --output, or add --yes" in refused.err
    no = Terminal(folder, 200).run(*REPORT, "--output", "thesis.html", answer="n\n")
    assert no.code == 1
    assert "thesis.html is there, and is no report of spectral-edge: it would be replaced. Replace it? [y/N]" in no.text
    assert "stopped: nothing was written." in no.text
    assert thesis.read_text() == "<title>My thesis</title>"
    assert typed(folder, *REPORT, "--output", "thesis.html", "--yes").code == 0
    assert "Spectral edge report" in thesis.read_text()
    again = typed(folder, *REPORT, "--output", "thesis.html", "--json")  # a report by now: nothing is asked
    told = json.loads(again.out)
    require_schema("report", told)
    assert (again.err, told["output"], told["bytes"]) == ("", "thesis.html", thesis.stat().st_size)


def test_an_export_replaces_a_file_only_after_a_yes(folder: Path, typed: Typed) -> None:
    file = folder / "runs.csv"
    file.write_text("precious")
    asked = ("export", "runs.csv", "--table", "runs")
    refused = typed(folder, *asked)
    assert (refused.code, refused.out) == (2, "")
    assert "runs.csv is there already: it would be replaced, and there is no terminal to ask on." in refused.err
    assert file.read_text() == "precious"
    assert typed(folder, *asked, "--yes").code == 0
    assert file.read_text().startswith('"tracker"')


def test_an_import_asks_before_audits_here_are_replaced(folder: Path, typed: Typed) -> None:
    before = Store.open(folder / "spectral-edge-store").audits()
    refused = typed(folder, "import", "other")
    assert (refused.code, refused.out) == (2, "")
    assert "newer audits of 1 run here (toy / name of one): they would be replaced" in refused.err
    assert Terminal(folder, 200).run("import", "other", answer="no\n").code == 1
    assert Store.open(folder / "spectral-edge-store").audits() == before
    done = typed(folder, "import", "other", "--yes", "--json")
    told = json.loads(done.out)
    require_schema("import", told)
    assert (told["added"], told["replaced"]) == (["toy / name of two"], ["toy / name of one"])
    assert typed(folder, "import", "other").code == 0  # nothing is left to replace, so nothing is asked

"""What people see: one line, whatever the text holds; and nothing lost in a table, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipelines.progress import Bars, Lines, showing
from pipelines.results import RunResult
from pipelines.terminal import exit_code, print_csv, print_error, print_table
from pipelines.wording import minutes_text, plain_text, size_text
from spectral_edge.errors import CheckpointFormatError, NotFoundError, TrackerUnavailableError, UsageError
from spectral_edge.tables import RunKey

KEY = RunKey("dir", "toy", "id-1", "[bold]:x: \x1b[31mred\x07")


@given(st.text())
def test_plain_text_is_one_printable_line(text: str) -> None:
    plain = plain_text(text)
    assert len(plain.splitlines()) <= 1
    assert plain.isprintable()


def test_an_error_is_one_line_without_escapes_markup_or_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("run [red]a\x1b[31m\nb:x:[/red] " + "long " * 100)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: run [red]a\N{REPLACEMENT CHARACTER}[31m b:x:[/red] long")


def test_exit_codes() -> None:
    assert [exit_code(kind("x")) for kind in (UsageError, NotFoundError)] == [2, 2]
    assert [exit_code(kind("x")) for kind in (CheckpointFormatError, TrackerUnavailableError)] == [1, 1]


def test_a_table_in_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    wide = "w" * 500
    print_table(
        ["name", "number", "many", "nothing"], [{"name": wide, "number": 0.1, "many": [1, 2.5], "nothing": None}]
    )
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "number", "many", "nothing"]
    assert row.split() == [wide, "0.1", "1,", "2.5", "-"]


def test_csv_keeps_lists_and_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    print_csv(["a", "b", "c"], [{"a": 'say "x", y', "b": [1.5, None], "c": None}])
    [header, row] = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["a", "b", "c"]
    assert row[0] == 'say "x", y'
    assert json.loads(row[1]) == [1.5, None]
    assert row[2] == ""


def test_sizes_and_times_in_words() -> None:
    assert [size_text(size) for size in (0, 999, 31_300_000, 20 * 10**9)] == [
        "0 bytes",
        "999 bytes",
        "31.3 MB",
        "20.0 GB",
    ]
    assert [minutes_text(seconds) for seconds in (5, 720, 12_600)] == ["under a minute", "12 minutes", "3.5 hours"]


def test_outside_a_terminal_a_run_is_one_line() -> None:
    out = io.StringIO()
    display = Lines(Console(file=out, emoji=False))
    progress = display.run_started(KEY, 3, 100, 100)
    progress.fetched(50)
    progress.read(50)
    display.run_ended(RunResult(KEY.run_name, KEY.run_id, "audited", checkpoints=3, regime="plateau", transitions=1))
    display.run_ended(RunResult("quiet", "id-2", "unchanged"))
    display.run_ended(RunResult("bad", "id-3", "failed", error="run bad: truncated."))
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith(": audited, 3 checkpoints, regime plateau, 1 transition")
    assert "\x1b" not in lines[0]
    assert lines[1] == "error: run bad: truncated."


def test_colours_that_are_forced_upon_a_file_make_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with showing() as display:
        assert type(display) is Lines


def test_on_a_terminal_a_run_is_a_bar_with_checkpoint_and_bytes() -> None:
    out = io.StringIO()
    with Bars(Console(file=out, force_terminal=True, width=150, emoji=False)) as display:
        progress = display.run_started(KEY, 3, 1000, 2000)
        progress.fetched(1000)
        progress.read(1400)
        display._progress.refresh()
        shown = out.getvalue()
        display.run_ended(RunResult(KEY.run_name, KEY.run_id, "audited", checkpoints=3))
        display.run_started(KEY, 3, 0, 10)
        display.run_started(KEY, 3, 0, 10)
        display.run_ended(RunResult(KEY.run_name, KEY.run_id, "no_checkpoints"))
        assert display._progress.tasks == []
    assert "read 2/3" in shown
    assert "2.4/3.0 kB" in shown
    assert "[bold]:x:" in shown
    assert "\x07" not in shown

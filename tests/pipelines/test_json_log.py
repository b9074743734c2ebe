"""One object a line, whatever names hold and whoever writes."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.json_log import JsonLog, all_in_json
from pipelines.results import RunResult
from pipelines.terminal import print_error, use_log_format
from spectral_edge.tables import RunKey


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@given(st.text())
def test_no_name_breaks_a_line(name: str) -> None:
    stream = io.StringIO()
    log = JsonLog(stream)
    log.run_started(RunKey("dir", name, name, name), 3, 10, 20).read(20)
    log.run_ended(RunResult(name, name, "audited", project=name, warnings=(name,), transitions=2))
    assert stream.getvalue().count("\n") == len(stream.getvalue().splitlines()) == 3
    assert stream.getvalue().isascii()
    started, ended, warned = lines(stream)
    assert (started["event"], started["run_id"], started["bytes_to_read"]) == ("run_started", name, 20)
    assert (ended["level"], ended["run_name"], ended["transitions"]) == ("info", name, 2)
    assert (warned["level"], warned["text"], warned["run_id"]) == ("warning", name, name)


def test_failures_are_errors_with_their_class() -> None:
    stream = io.StringIO()
    failed = RunResult("n", "i", "failed", error="run n: bad", error_class="NonFiniteError", project="p")
    JsonLog(stream).run_ended(failed)
    [told] = lines(stream)
    assert (told["level"], told["error_class"], told["text"]) == ("error", "NonFiniteError", "run n: bad")


def test_lines_of_many_threads_stay_whole() -> None:
    stream = io.StringIO()
    log = JsonLog(stream)
    threads = [Thread(target=lambda: [log.say("x" * 5000) for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(stream)) == 400


def test_what_libraries_say_is_json_inside_the_block_only() -> None:
    stream, talker, seen = io.StringIO(), logging.getLogger("a.library"), io.StringIO()
    own = logging.StreamHandler(sys.stderr)
    talker.addHandler(own)
    try:
        with all_in_json(JsonLog(stream)), warnings.catch_warnings():
            warnings.simplefilter("always")
            talker.warning("careful:\n%s", "two lines")
            logging.getLogger("another").error("bad")
            logging.captureWarnings(True)
            warnings.warn("old", stacklevel=1)
        assert talker.handlers == [own]
    finally:
        talker.removeHandler(own)
    told = lines(stream)
    assert [(line["level"], line["logger"]) for line in told] == [
        ("warning", "a.library"),
        ("error", "another"),
        ("warning", "py.warnings"),
    ]
    assert told[0]["text"] == "careful:\ntwo lines"
    assert seen.getvalue() == ""


def test_errors_of_the_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRAL_EDGE_LOG_FORMAT", "text")
    use_log_format("json")
    print_error("run a\nb: bad")
    told = json.loads(capsys.readouterr().err)
    assert (told["level"], told["event"], told["text"]) == ("error", "error", "run a\nb: bad")

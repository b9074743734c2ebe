"""The words of annotations: what becomes a metric, a tag, a file; and what the note says and never says."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations.annotation_note import escaped, note_of
from integrations.annotations import METRIC_QUANTITIES, annotation_of
from spectral_edge.report import png_of
from spectral_edge.settings import Settings
from spectral_edge.tables import GAPS, RunKey, RunTables, build

KEY = RunKey("mlflow", "<b>project</b>", "0" * 32, "run [x](http://evil.example)")
SETTINGS = Settings()
SHARED = {**KEY.columns(), "audit_id": "a" * 16, "settings_hash": SETTINGS.hash, "schema_version": 1}


def gap(step: int, **columns: Any) -> dict[str, Any]:
    sigma = [4.0, 2.0, 1.0, 0.5]
    made = {
        "group": "total",
        "window": 10,
        "short": False,
        "step": step,
        "step_first": step - 10,
        "singular_values": sigma,
        "k_star": 1,
        "gap": 2.0,
        "gap_ratio": 2.0,
        "overlap": [0.99, 0.9],
        "rotation_degrees": 3.0,
        "gram_change_relative": 0.1,
        "adiabatic_relative": None,
        "effective_rank": 1.7,
        "update_norm": 1.0,
        "drift": 0.5,
        "regime": "plateau",
    }
    return SHARED | made | columns


TRANSITION = SHARED | {
    "group": "total",
    "kind": "gap_opening",
    "onset_step": 3200,
    "onset_low": 3000,
    "onset_high": 3400,
    "k_before": 1,
    "k_after": 2,
    "q_value": 0.0123,
    "metric_name": "val_acc",
    "metric_onset": 5200,
    "lead_steps": 2000,
    "lead_low": 1200,
    "lead_high": 2600,
}


def tables(
    gaps: list[dict[str, Any]] | None = None, transitions: list[dict[str, Any]] | None = None, **summary: Any
) -> RunTables:
    found = [] if transitions is None else transitions
    row = {
        "status": "ok",
        "state": "finished",
        "url": "http://x",
        "checkpoints": 60,
        "windows": 50,
        "step_first": 0,
        "step_last": 12000,
        "regime": "plateau",
        "transitions": len(found),
        "metric_name": "val_acc",
        "fingerprint": "f" * 64,
        "settings": SETTINGS.as_json(),
        "warnings": [],
        "versions": "{}",
    }
    windows = [gap(100, short=True), gap(200), gap(300)] if gaps is None else gaps
    return RunTables(
        KEY,
        build("runs", [SHARED | row | summary]),
        build("inner_products", []),
        build("gaps", windows),
        build("transitions", found),
    )


def failed() -> RunTables:
    return tables(
        [], status="failed", error="file a.pt: truncated", regime=None, windows=0, checkpoints=None, step_first=None
    )


def test_full_windows_become_metrics_and_short_ones_do_not() -> None:
    metrics = annotation_of(tables(), level="full").metrics
    assert {point.step for point in metrics} == {200, 300}
    keys = {point.key for point in metrics}
    written = {name.replace("/", "_") for name in METRIC_QUANTITIES} - {"adiabatic_relative"}
    assert keys == {f"spectral_edge/total/{name}" for name in written}, "a group is all that stands before a last slash"
    assert {point.value for point in metrics if point.key.endswith("singular_values_3")} == {1.0}


def test_values_that_are_missing_or_not_finite_are_not_written() -> None:
    odd = gap(200, gap_ratio=math.inf, gap=math.nan, overlap=[], singular_values=[1.0], drift=None)
    keys = {
        point.key.removeprefix("spectral_edge/total/") for point in annotation_of(tables([odd]), level="full").metrics
    }
    assert not keys & {"gap_ratio", "gap", "overlap_1", "singular_values_2", "drift"}
    assert "singular_values_1" in keys
    assert all(math.isfinite(point.value) for point in annotation_of(tables([odd]), level="full").metrics)


def test_every_metric_is_a_column_of_the_tables() -> None:
    assert {name.partition("/")[0] for name in METRIC_QUANTITIES} <= set(GAPS.names)


def test_tags_say_what_was_found_and_which_audit_it_was() -> None:
    tags = annotation_of(tables(transitions=[TRANSITION]), level="full").tags
    assert tags["spectral_edge.status"] == "ok"
    assert tags["spectral_edge.regime"] == "plateau"
    assert tags["spectral_edge.transitions"] == "1"
    assert tags["spectral_edge.fingerprint"] == "f" * 64
    assert tags["spectral_edge.settings_hash"] == SETTINGS.hash
    assert "spectral_edge.error" not in tags
    assert all(len(value) <= 2000 for value in annotation_of(tables(error="x" * 9000), level="full").tags.values())


def test_files_are_the_gap_table_and_the_chart_in_three_forms() -> None:
    made = tables([gap(step) for step in range(100, 2000, 100)])
    files = annotation_of(made, level="full").files
    assert sorted(files) == ["gaps.parquet", "spectrum.html", "spectrum.png", "spectrum.svg"]
    assert pq.read_table(io.BytesIO(files["gaps.parquet"])).equals(made.gaps)
    assert files["spectrum.png"].startswith(b"\x89PNG")
    assert png_of(files["spectrum.svg"].decode()) == files["spectrum.png"]
    assert b"<html" in files["spectrum.html"]
    assert b"<b>project</b>" not in files["spectrum.html"]


def test_the_same_audit_gives_the_same_annotation() -> None:
    first, again = annotation_of(tables(), level="full"), annotation_of(tables(), level="full")
    assert first.files["gaps.parquet"] == again.files["gaps.parquet"]
    assert first.mark == again.mark


def test_another_level_status_or_time_is_another_mark_or_not() -> None:
    full = annotation_of(tables(), level="full").mark
    assert annotation_of(tables(), level="summary").mark != full
    assert annotation_of(tables(status="partial", error="group mlp ends early"), level="full").mark != full
    assert annotation_of(tables(seconds_fetch=7.0), level="full").mark == full


def test_a_summary_has_tags_and_note_alone() -> None:
    annotation = annotation_of(tables(), level="summary")
    assert not annotation.files
    assert not annotation.metrics
    assert annotation.tags["spectral_edge.status"] == "ok"
    assert annotation.note


def test_a_failed_run_has_its_error_and_no_chart() -> None:
    annotation = annotation_of(failed(), level="full")
    assert not annotation.files
    assert not annotation.metrics
    assert annotation.tags["spectral_edge.status"] == "failed"
    assert annotation.tags["spectral_edge.error"] == "file a.pt: truncated"
    assert "The audit failed: file a.pt: truncated." in annotation.note


def test_the_note_tells_what_changed_where_and_how_sure_that_is() -> None:
    note = note_of(tables(transitions=[TRANSITION]))
    assert "60 checkpoints from step 0 to step 12000" in note
    assert "The spectrum changed here" in note
    assert "group total: the gap opened at step 3200 (between 3000 and 3400; q = 0.012)." in note
    assert "val_acc changed at step 5200, 2000 steps later (interval 1200 to 2600)." in note


def test_the_note_tells_a_metric_that_came_first_as_such() -> None:
    note = note_of(tables(transitions=[TRANSITION | {"lead_steps": -400, "lead_low": None, "lead_high": None}]))
    assert "400 steps earlier." in note


@pytest.mark.parametrize(
    ("q", "said"), [(0.0, "q < 0.001"), (0.0004, "q < 0.001"), (0.05, "q = 0.05"), (None, "no q-value")]
)
def test_no_q_value_reads_like_certainty(q: float | None, said: str) -> None:
    assert said in note_of(tables(transitions=[TRANSITION | {"q_value": q}]))


def test_the_note_of_a_run_without_a_change_claims_no_absence() -> None:
    note = note_of(tables())
    assert "No change of the spectrum was established at a false-alarm rate of 5% per run." in note
    assert "That does not show that there was none." in note


def test_the_note_says_what_could_not_be_said_and_why() -> None:
    last = gap(300, regime="undetermined", regime_reason="no learning rate was logged")
    note = note_of(
        tables([gap(200), last], regime="undetermined", metric_name=None, warnings=[f"w{n}" for n in range(9)])
    )
    assert "is undetermined: no learning rate was logged." in note
    assert "No evaluation metric was found" in note
    assert "- w0." in note
    assert "4 more are in the tables" in note


def test_the_note_never_promises(prophecies: re.Pattern[str]) -> None:
    for made in (tables(), tables(transitions=[TRANSITION]), failed()):
        assert not prophecies.search(note_of(made))


@pytest.fixture
def prophecies() -> re.Pattern[str]:
    """Words of one who knows what a model will learn."""
    return re.compile(r"\b(grok\w*|will|soon|coming|predict\w*|imminent|certain\w*|proves?)\b", re.IGNORECASE)


def test_many_transitions_are_counted() -> None:
    note = note_of(tables(transitions=[TRANSITION | {"onset_step": step} for step in range(20)]))
    assert "- 12 more are in the tables." in note


def test_a_note_fits_beside_the_users_in_mlflow() -> None:
    long = "x" * 5000
    made = tables(
        transitions=[TRANSITION | {"metric_name": long, "group": long} for _ in range(30)],
        warnings=[long] * 30,
        error=long,
        status="partial",
    )
    assert len(note_of(made)) < 7000


@settings(deadline=None)
@given(st.text())
def test_escaped_text_is_one_line_without_markdown(text: str) -> None:
    shown = escaped(text)
    assert "\n" not in shown
    assert not re.search(r"[<>`*\[\]\\|~!@$]|://|www\.", shown, re.IGNORECASE)
    assert "&" not in re.sub(r"&#\d+;", "", shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("step_000100.pt", "step_000100.pt"),
        ("_emphasis_ **bold**", "&#95;emphasis&#95; &#42;&#42;bold&#42;&#42;"),
        ("[x](http://evil)", "&#91;x&#93;(http&#58;//evil)"),
        ("<!-- spectral-edge:end -->", "&#60;&#33;-- spectral-edge:end --&#62;"),
        ("a\n# title\u202e", "a &#35; title"),
    ],
)
def test_escaping(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_names_from_the_tracker_are_escaped_in_the_note() -> None:
    evil = "<script>alert(1)</script> [x](http://evil.example) <!-- spectral-edge:end -->"
    made = tables(
        transitions=[TRANSITION | {"metric_name": evil, "group": evil}], warnings=[evil], error=evil, status="partial"
    )
    note = note_of(made)
    assert "<" not in note
    assert "](" not in note
    assert "http:/" not in note


def test_marks_are_what_trackers_can_read_back() -> None:
    annotation = annotation_of(tables(), level="full")
    assert annotation.mark.split("/")[:2] == ["f" * 64, SETTINGS.hash]
    assert replace(annotation, note="other").mark != annotation.mark
    assert json.dumps(annotation.mark)

"""What is written to W&B, in words that W&B takes; and a summary of which only our part changes."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
import wandb
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations.tracker import Annotation, MetricPoint
from integrations.wandb_into_run import _with_axis
from integrations.wandb_page import NOTHING, Content, RunPage, _items, _text, full_content, summary_content
from integrations.wandb_results import artifact_name, quiet_settings, refuse_others_context, rows_of, summary_of
from spectral_edge.errors import UsageError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
SUMMARIES = st.dictionaries(st.text(), VALUES, max_size=6)


def annotation(**tags: str) -> Annotation:
    return Annotation("f", "s", {f"spectral_edge.{name}": text for name, text in tags.items()}, "Note.")


def page(summary: str = "{}", tags: tuple[str, ...] = (), notes: str = "") -> RunPage:
    return RunPage("id", "finished", tags, notes, dict(_items(summary)), {})


@settings(max_examples=50)
@given(SUMMARIES, st.sampled_from([None, 1]), st.booleans())
def test_the_text_of_a_summary_comes_through_byte_for_byte(
    values: object, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    items = dict(_items(text))
    assert repr(json.loads(_text(items))) == repr(values)
    assert all(value in text for value in items.values())


def test_numbers_that_python_would_write_otherwise_stay_as_they_are() -> None:
    text = '{ "a" : 1e400 ,"b":0.10000000000000000555, "c": -0.0, "d":NaN, "e" :[ 1.50 ] }'
    assert dict(_items(text)) == {"a": "1e400", "b": "0.10000000000000000555", "c": "-0.0", "d": "NaN", "e": "[ 1.50 ]"}
    assert dict(_items("{}")) == {}


@settings(max_examples=50)
@given(SUMMARIES)
def test_only_ours_is_exchanged_and_can_be_taken_out_again(values: dict[str, object]) -> None:
    theirs = {key: value for key, value in values.items() if not key.startswith("spectral_edge/")}
    before = page(json.dumps(theirs), ("a", "spectral_edge.mine"), "Mine.\r\n")
    written = before.carrying(full_content(annotation(status="ok", regime="plateau"), ("id", "url")), before)
    assert written.finished == annotation(status="ok", regime="plateau").mark
    assert written.tags == ("a", "spectral_edge.mine", "spectral_edge.regime:plateau", "spectral_edge.status:ok")
    assert written.has_section
    assert written.carrying(full_content(annotation(status="ok", regime="plateau"), ("id", "url")), written) == written
    assert written.carrying(NOTHING, written) == before


def test_tags_of_w_and_b_are_short_and_stay_where_they_stand() -> None:
    content = full_content(annotation(status="x" * 100), None)
    assert [len(tag) for tag in content.tags] == [64]
    before = page(tags=("spectral_edge.status:ok", "z"))
    assert before.carrying(Content({}, ("spectral_edge.status:ok",)), before).tags == before.tags
    assert not summary_content(annotation(status="ok")).tags


@given(st.dictionaries(st.sampled_from(["windows", "checkpoints", "status", "error"]), st.text(max_size=5)))
def test_counts_are_numbers_and_all_else_is_text(tags: dict[str, str]) -> None:
    told = summary_of(annotation(**tags))
    assert {key.removeprefix("spectral_edge/"): str(value) for key, value in told.items()}.keys() == tags.keys()
    for name, text in tags.items():
        is_count = name in ("windows", "checkpoints") and text.isdecimal()
        assert told[f"spectral_edge/{name}"] == (int(text) if is_count else text)


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_names_of_artifacts_are_such_that_w_and_b_takes_and_never_meet(one: str, two: str) -> None:
    names = {artifact_name(one), artifact_name(two)}
    assert len(names) == len({one, two})
    for name in names:
        assert set(name) <= set(string.ascii_letters + string.digits + "_.-")
        assert len(name) <= 128
    assert artifact_name("1a2b") == "spectral-edge-1a2b"


def test_a_row_for_each_step_in_order() -> None:
    points = (MetricPoint("b", 20, 1.0), MetricPoint("a", 10, 2.0), MetricPoint("a", 20, 3.0))
    made = Annotation("f", "s", {}, "", points)
    assert list(rows_of(made).items()) == [(10, {"a": 2.0}), (20, {"b": 1.0, "a": 3.0})]


def test_our_axis_is_added_once_behind_those_of_the_run() -> None:
    first = _with_axis({"lr": '{"value": NaN}'})
    assert first["lr"] == '{"value": NaN}'
    assert _with_axis(first) == first
    axes = json.loads(first["_wandb"])["value"]["m"]
    assert axes == [
        {"1": "spectral_edge/step", "6": [3, 2], "7": []},
        {"2": "spectral_edge/*", "5": 1, "6": [], "7": []},
    ]


def test_inside_a_sweep_no_run_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # an earlier test's, which may have ended
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    refuse_others_context()
    monkeypatch.setattr(wandb.setup().settings, "sweep_id", "s1")
    with pytest.raises(UsageError, match="inside a W&B sweep"):
        refuse_others_context()


def test_settings_tell_nothing_of_this_machine_and_write_where_they_are_told(tmp_path: Path) -> None:
    chosen = quiet_settings(tmp_path, mode="online", run_id="x")
    assert chosen.program == "spectral-edge"
    assert chosen.console == "off"
    assert chosen.root_dir == str(tmp_path)
    assert chosen.x_disable_meta
    assert chosen.finish_timeout > 0

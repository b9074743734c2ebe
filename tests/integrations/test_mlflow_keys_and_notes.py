"""Keys that MLflow takes whatever the names are, and notes of which the user's part stays as it is."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric

from integrations.annotation_section import NOTE_BEGIN, NOTE_END, note_with_section, note_without_section
from integrations.mlflow_annotations import MAX_KEY, safe_key

SECTION = "### Spectral edge audit"
OURS = f"{NOTE_BEGIN}\n{SECTION}\n{NOTE_END}"
pieces = st.sampled_from([NOTE_BEGIN, NOTE_END, OURS, "text", "\r\n", " ", "<!--", "\\1", "é"])
notes = st.lists(pieces, max_size=8).map("".join) | st.text()


@settings(deadline=None)
@given(st.text(min_size=1, max_size=400))
def test_every_key_is_one_that_mlflow_takes(group: str) -> None:
    key = safe_key(f"spectral_edge/{group}/gap")
    _validate_metric(key, 1.0, 0, 0)
    assert len(key) <= MAX_KEY
    assert key.startswith("spectral_edge/")


@settings(deadline=None)
@given(st.lists(st.text(max_size=300), unique=True, min_size=2, max_size=6))
def test_different_groups_keep_different_keys(groups: list[str]) -> None:
    assert len({safe_key(f"spectral_edge/{group}/gap") for group in groups}) == len(groups)


def test_usual_keys_stay_as_they_are() -> None:
    for key in ("spectral_edge/total/gap", "spectral_edge/layer.0/singular_values_1", "spectral_edge/mlp/k_star"):
        assert safe_key(key) == key


@settings(deadline=None)
@given(notes)
def test_the_users_text_stays_byte_for_byte(note: str) -> None:
    merged = note_with_section(note, SECTION)
    assert OURS in merged
    if NOTE_BEGIN not in note or NOTE_END not in note:
        assert merged == (f"{note}\n\n{OURS}" if note else OURS)


@settings(deadline=None)
@given(notes)
def test_writing_again_changes_nothing(note: str) -> None:
    once = note_with_section(note, SECTION)
    assert note_with_section(once, SECTION) == once


@settings(deadline=None)
@given(notes, notes)
def test_a_section_replaces_itself_in_its_place(before: str, after: str) -> None:
    if NOTE_BEGIN in before + after or NOTE_END in before + after:
        return
    merged = note_with_section(before + OURS + after, "new")
    assert merged == f"{before}{NOTE_BEGIN}\nnew\n{NOTE_END}{after}"


@settings(deadline=None)
@given(st.text(), st.text())
def test_a_mark_that_lost_its_partner_never_swallows_the_users_text(before: str, after: str) -> None:
    half = f"{before}{NOTE_BEGIN}{after}"
    twice = note_with_section(note_with_section(half, SECTION), "new")
    assert twice.startswith(half)
    assert len(re.findall(re.escape(NOTE_END), twice)) == 1 + (before + after).count(NOTE_END)


@settings(deadline=None)
@given(notes)
def test_what_was_written_to_a_note_is_taken_out_byte_for_byte(note: str) -> None:
    if NOTE_BEGIN not in note or NOTE_END not in note:
        assert note_without_section(note_with_section(note, SECTION)) == note


@settings(deadline=None)
@given(notes)
def test_taking_out_twice_changes_nothing_and_leaves_no_whole_section(note: str) -> None:
    once = note_without_section(note)
    assert note_without_section(once) == once
    assert OURS not in once


def test_only_the_section_and_the_empty_line_before_it_are_taken_out() -> None:
    for before, after in (
        ("Mine.", "\n\nMore."),
        ("Mine.\r\n", " and more"),
        ("\n\n", ""),
        ("", "\n\n"),
        ("a\n\n\n\n", "b"),
    ):
        left = before.removesuffix("\n\n") if len(before) > 2 else before
        assert note_without_section(before + OURS + after) == left + after
    assert note_without_section(f"a {OURS} b {OURS} c") == "a  b  c"
    assert note_without_section(f"a {NOTE_END} b {NOTE_BEGIN} c") == f"a {NOTE_END} b {NOTE_BEGIN} c"

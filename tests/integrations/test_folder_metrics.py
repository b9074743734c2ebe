"""Metrics files as training loops write them, and broken ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations.folder_metrics import folder_metrics

LINES = '{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 2.0, "phase": "train"}\n'


def series(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = folder_metrics(folder).series
    return {name: list(zip(one.steps.tolist(), one.values.tolist(), strict=True)) for name, one in found.items()}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("metrics.csv", "step,loss,time\n1,2.5,10:00\n2,2.0,10:01\n", {"loss": [(1, 2.5), (2, 2.0)]}),
        ("metrics.csv", "step,lr-SGD,loss\n9,,2.5\n9,0.1,\n", {"lr-SGD": [(9, 0.1)], "loss": [(9, 2.5)]}),
        ("log.csv", "\ufeffiteration, acc \n1e2,0.5\n200.0,0.75", {"acc": [(100, 0.5), (200, 0.75)]}),
        ("metrics.jsonl", LINES, {"loss": [(1, 2.5), (2, 2.0)]}),
        ("history.ndjson", '{"_step": 3, "acc": 1, "ok": true, "x": [1]}', {"acc": [(3, 1.0)]}),
        ("log.jsonl", '{"global_step": 3, "acc": NaN}\n{"global_step": 4, "acc": 0.5}', {"acc": [(4, 0.5)]}),
    ],
)
def test_good_files(tmp_path: Path, name: str, content: str, expected: dict[str, list[tuple[int, float]]]) -> None:
    (tmp_path / name).write_text(content)
    assert series(tmp_path) == expected
    assert not folder_metrics(tmp_path).warnings


@pytest.mark.parametrize(
    ("name", "content", "left", "said"),
    [
        ("metrics.csv", "step,loss\n1,2.5\n2\n3,2.0\n", [1, 3], "metrics.csv, line 3: 1 fields, the header has 2"),
        ("metrics.csv", "step,loss\n1,2.5\n2,oops\n3,2.0\n", [1, 3], "line 3: loss is not a number"),
        ("metrics.csv", "step,loss\n1,2.5\nx,2.0\n", [1], "line 3: step is 'x', not a whole number"),
        ("metrics.csv", "step,loss\n1,2.5\n1.5,2.0\n", [1], "line 3: step is '1.5'"),
        ("metrics.csv", 'step,loss\n1,2.5\n2,"' + "x" * 200_000 + '"\n', [1], "nothing after this line was read"),
        ("metrics.jsonl", LINES + '{"step": 3, "lo', [1, 2], "metrics.jsonl, line 3: not JSON"),
        ("metrics.jsonl", LINES + "[3]\n", [1, 2], "line 3: not a JSON object"),
        ("metrics.jsonl", LINES + '{"loss": 1.0}\n', [1, 2], "line 3: step is None"),
        ("metrics.jsonl", LINES + "[" * 100_000, [1, 2], "line 3: not JSON"),
        ("metrics.jsonl", LINES + '{"step": 1e999, "loss": 1}\n', [1, 2], "line 3: step is inf"),
    ],
)
def test_broken_rows_are_left_out_and_named(
    tmp_path: Path, name: str, content: str, left: list[int], said: str
) -> None:
    (tmp_path / name).write_text(content)
    assert [step for step, _ in series(tmp_path)["loss"]] == left
    assert said in "\n".join(folder_metrics(tmp_path).warnings)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"loss,acc\n1,2\n",
            "has no column of steps (step, global_step, _step, iteration); its columns: 'loss', 'acc'",
        ),
        (b"\xff\xfe\x00", "metrics.csv is not UTF-8 text"),
        (b"", "metrics.csv has no column of steps"),
    ],
)
def test_files_that_cannot_be_used_say_why(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    assert not series(tmp_path)
    assert said in "\n".join(folder_metrics(tmp_path).warnings)


def test_many_broken_rows_are_counted(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(LINES + "oops\n" * 50)
    warnings = folder_metrics(tmp_path).warnings
    assert len(warnings) == 4
    assert "47 more lines" in warnings[-1]


def test_a_file_that_grew_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(LINES)
    assert len(series(tmp_path)["loss"]) == 2
    path.write_text(LINES + '{"step": 3, "loss": 1.0}\n')
    assert len(series(tmp_path)["loss"]) == 3


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(0, 2**40), st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
    st.sampled_from(["metrics.csv", "metrics.jsonl"]),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, points: dict[int, float], name: str) -> None:
    folder = tmp_path_factory.mktemp("run")
    with (folder / name).open("w", newline="") as file:
        if name.endswith(".csv"):
            csv.writer(file).writerows([("step", "x"), *((step, repr(value)) for step, value in points.items())])
        else:
            file.writelines(json.dumps({"step": step, "x": value}) + "\n" for step, value in points.items())
    assert series(folder)["x"] == sorted(points.items())

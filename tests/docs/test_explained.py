"""The pictures of docs/explained.md are of the tables that are stored, and those are what other pages say."""

from __future__ import annotations

import re
from pathlib import Path

import pictures
from snippets import ROOT

from benchmarks.replication.explained import SHOWN, TABLES, draw, read

PAGE = (ROOT / "docs/explained.md").read_text().replace("\n", " ")


def test_rates_are_those_of_the_calibration() -> None:
    rows = re.findall(
        r"^\| ([^|]+?) \| [^|]+ \| (\d+)/(\d+) ", (ROOT / "docs/calibration.md").read_text(), re.MULTILINE
    )
    told = {name: counts for name, *counts in rows}
    stored = {row["runs"]: [row["changed"], row["of"]] for row in read(TABLES / "rates.csv")}
    [synthetic] = [name for name in stored if name.startswith("synthetic")]
    assert stored.pop(synthetic) == ["19", "1000"]
    assert "| the same, anisotropic | 1.9 % |" in (ROOT / "docs/transitions.md").read_text()
    assert len(stored) == 8
    for name, counts in stored.items():
        [found] = [told[other] for other in told if other.split(" (")[0] == name.split(" (")[0]]
        assert found == counts, name


def test_the_pictures_show_the_stored_tables(tmp_path: Path) -> None:
    for path in draw(tmp_path):
        pictures.check(path.name, path.read_bytes())
        assert f"](images/{path.name})" in PAGE


def test_the_text_tells_what_the_pictures_show() -> None:
    windows, changes = read(TABLES / "windows.csv"), read(TABLES / "changes.csv")
    groks, decays_not, random_labels = SHOWN
    onsets = {run: [row["onset_step"] for row in changes if row["run"] == run] for run in SHOWN}
    assert "at steps {} and {}, in the midst".format(*onsets[groks]) in PAGE
    assert "at steps {:,} and {:,}, at which".format(*onsets[decays_not]) in PAGE
    own = [row for row in windows if row["run"] == random_labels]
    assert max(float(row["held_out"]) for row in own) < 0.06
    highest = max(float(row["gap_ratio"]) for row in own)
    assert f"the ratio falls from {highest:.1f} to 1." in PAGE
    learns = [row for row in windows if row["run"] == groks]
    half, most = (min(row["step"] for row in learns if float(row["held_out"]) >= bound) for bound in (0.5, 0.95))
    assert f"passes 0.5 at step {half} and 0.95 at step {most:,}" in PAGE

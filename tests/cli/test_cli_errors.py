"""Slips of the pen: one line that says what was probably meant; and the exit codes."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from terminals import COMMAND, Typed, environment

from pipelines.cli_run import EXIT_CODES, unknown_variables, use_colours_of

SLIPS = [
    (("adit", "dir:x"), "no such command 'adit'. Did you mean 'audit'? Next: spectral-edge --help"),
    (("audit", "dir:x", "--windw", "3"), "no such option: --windw. Did you mean --window"),
    (
        ("audit", "dir:x", "--window", "ten"),
        "integer. Next: spectral-edge audit --help",
    ),
    (("audit", "dir:x", "--annotate", "ful"), "Next: spectral-edge audit --help"),
    (("audit",), 'Next: name one (mlflow:EXPERIMENT, dir:PATH), or write sources = ["..."]'),
    (("audit", "mflow:toy"), "Next: write mlflow:toy."),
    (("audit", "lb:toy"), "Next: write lab:toy."),
    (("report",), "Next: spectral-edge report"),
    (("query", "failure"), "no question is called 'failure', and it is no SQL. Next: did you mean failures"),
    (("query", "gaps"), 'Next: spectral-edge query "select * from gaps limit 10"'),
    (("query", "select * from gap"), 'Did you mean "gaps"'),
    (("query", "select regim from gaps"), '"regime"'),
    (("export", "x.csv", "--table", "gap"), "Next: did you mean gaps"),
    (("export", "x", "--project", "tyo"), "Next: did you mean toy"),
    (("export", "x", "--run", "fist"), "Next: did you mean first"),
    (("scorecard", "--run", "name of frst"), "Next: did you mean name of first"),
    (("retract", "dir:runs", "--run", "runs/on", "--dry-run"), "no such run. Next: name one of one-"),
    (("probe", "dir:runs", "--probe", "a:b", "--windows", "0"), "Next: spectral-edge probe --help"),
    (("schema", "audits"), "Next: did you mean audit"),
]


@pytest.fixture(scope="module")
def folder(place: Path) -> Path:
    """With a run and a named tracker."""
    (place / "runs" / "one").mkdir(parents=True, exist_ok=True)
    (place / "runs" / "one" / "step_1.safetensors").write_bytes(b"no checkpoint")
    (place / "spectral-edge.toml").write_text('[trackers.lab]\nkind = "dir"\npath = "runs"\n')
    yield place
    (place / "spectral-edge.toml").unlink()


@pytest.mark.parametrize(("arguments", "told"), SLIPS)
def test_a_slip_is_one_line_with_a_next_step(folder: Path, arguments: tuple[str, ...], told: str, typed: Typed) -> None:
    said = typed(folder, *arguments)
    assert (said.code, said.out) == (2, "")
    [line] = said.err.splitlines()
    assert line.startswith("error: ")
    assert "Next: " in line
    assert told in line


def test_an_unknown_setting_is_told_with_the_one_that_was_meant(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spectral-edge.toml").write_text("windw = 3\n")
    monkeypatch.setenv("SPECTRAL_EDGE_STROE", "x")
    said = typed(tmp_path, "runs")
    assert said.code == 2
    warning, error = said.err.splitlines()
    assert warning.startswith("warning: the variable SPECTRAL_EDGE_STROE is no setting, and is ignored.")
    assert "did you mean SPECTRAL_EDGE_STORE?" in warning
    assert "no setting is called `windw`" in error
    assert "Next: did you mean `window`?" in error


def test_variables_that_are_ours_are_no_slips() -> None:
    ours = {"SPECTRAL_EDGE_WINDOW", "SPECTRAL_EDGE_FOLDER", "SPECTRAL_EDGE_TIED_TO_PARENT", "_SPECTRAL_EDGE_COMPLETE"}
    assert list(unknown_variables(dict.fromkeys(ours, "1"))) == []


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"CLICOLOR_FORCE": "1", "CLICOLOR": "0"}, {"FORCE_COLOR": "1"}),
        ({"CLICOLOR": "0", "FORCE_COLOR": "1"}, {"FORCE_COLOR": "1"}),
        ({"CLICOLOR": "1"}, {}),
        ({"CLICOLOR_FORCE": "0"}, {}),
        ({"FORCE_COLOR": "0"}, {"NO_COLOR": "1"}),
        ({"NO_COLOR": "1", "CLICOLOR_FORCE": "1"}, {"NO_COLOR": "1"}),
    ],
)
def test_who_wins_among_the_variables_of_colours(given: dict[str, str], meant: dict[str, str]) -> None:
    environment = dict(given)
    use_colours_of(environment)
    assert {name: environment[name] for name in ("NO_COLOR", "FORCE_COLOR") if name in environment} == meant


def test_the_documented_exit_codes_are_those_of_the_commands(place: Path, tmp_path: Path, typed: Typed) -> None:
    (place / "damaged").mkdir()
    (place / "damaged" / "runs.parquet").write_bytes(b"no parquet")
    seen = {
        0: typed(place, "runs").code,
        1: typed(place, "import", "damaged").code,
        2: typed(tmp_path, "runs").code,
    }
    for number in (signal.SIGINT, signal.SIGTERM):
        slow = ["query", "select count(*) from range(100000000000) a, range(1000000) b"]
        with subprocess.Popen(
            # Whatever started the tests may have told them to ignore Ctrl-C, and with them all that they start.
            ["env", "--default-signal=INT", COMMAND, *slow],
            cwd=place,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(4)
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
        assert "Traceback" not in err
        seen[128 + number] = process.returncode if process.returncode >= 0 else 128 - process.returncode
    assert seen == {code: code for code in EXIT_CODES}


def test_a_reader_that_stops_early_is_no_error(place: Path) -> None:
    line = f"{COMMAND} query 'select * from range(300000)' --csv | head -1"
    done = subprocess.run(
        ["bash", "-c", line], cwd=place, env=environment(), capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("range\n", "")

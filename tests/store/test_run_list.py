"""One run by what people call it, and the list of all."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from audits import audit, key_of

from spectral_edge.errors import NotFoundError, UsageError
from spectral_edge.store import Store
from spectral_edge.tables import RunKey, RunTables, build

OLD = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)


def of(run_id: str, name: str, project: str, *, audited_at: dt.datetime = OLD) -> RunTables:
    tables = audit(replace(key_of(run_id, project=project), run_name=name))
    return replace(tables, runs=build("runs", [tables.summary | {"audited_at": audited_at}]))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(tmp_path_factory.mktemp("list") / "store")
    store.write_runs([of("1f52a4d4", "grok-s0", "sweep"), of("1f99", "grok-s1", "sweep"), of("abcd", "1f99", "sweep")])
    store.write_runs(
        [of("77aa", "grok-s0", "digits", audited_at=dt.datetime.now(dt.UTC)), of("77", "\x1b[2J", "digits")]
    )
    return store


@pytest.mark.parametrize(
    ("asked", "project", "run_id"),
    [
        ("1f52a4d4", None, "1f52a4d4"),
        ("grok-s1", None, "1f99"),
        ("1f5", None, "1f52a4d4"),
        ("1f99", None, "1f99"),  # an id comes before a name
        ("77", None, "77"),  # and before the beginning of another
        ("grok-s0", "digits", "77aa"),
        ("grok-s0", "dig*", "77aa"),
    ],
)
def test_a_run_by_id_name_and_beginning_of_its_id(store: Store, asked: str, project: str | None, run_id: str) -> None:
    run = store.run(asked, project=project)
    assert run.key.run_id == run_id
    assert run.gaps.num_rows == 12
    assert repr(run).startswith(run.name if run.name.isprintable() else "\ufffd")


def test_several_are_listed(store: Store) -> None:
    with pytest.raises(
        UsageError, match=r"'grok-s0' may be any of 2 runs: .*'digits'.*'77aa'.*'sweep'.*'1f52a4d4'.*id"
    ):
        store.run("grok-s0")
    with pytest.raises(UsageError, match="'1f' may be any of 2 runs"):
        store.run("1f")


def test_what_looks_like_it_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(
        NotFoundError, match=r"no audited run 'grok-s2'\. Next: did you mean 'grok-s[01]', 'grok-s[01]'\?"
    ):
        store.run("grok-s2")
    with pytest.raises(NotFoundError, match=r"no audited run '' of project 'sweep'\. Next: name one of the runs"):
        store.run("", project="sweep")
    with pytest.raises(NotFoundError, match=r"no audited run is of project 'sweeps'\. Next: did you mean 'sweep'\?"):
        store.runs("sweeps")
    with pytest.raises(NotFoundError, match="spectral-edge audit SOURCE"):
        Store.open(tmp_path / "empty").run("a")


def test_the_list_is_by_project_and_name_and_reads_runs_when_asked(store: Store) -> None:
    runs = store.runs()
    assert [run.key.run_id for run in runs] == ["77", "77aa", "abcd", "1f52a4d4", "1f99"]
    assert runs[-1].name == "grok-s1"
    assert [run.name for run in runs[3:]] == ["grok-s0", "grok-s1"]
    assert len(store.runs("s*")) == 3
    assert list(runs.to_pandas()["run_id"]) == ["77", "77aa", "abcd", "1f52a4d4", "1f99"]
    assert runs.to_polars().height == 5
    with pytest.raises(IndexError):
        runs[5]


def test_the_list_since(store: Store) -> None:
    assert [run.key.run_id for run in store.runs(since=dt.timedelta(days=1))] == ["77aa"]
    assert len(store.runs(since=OLD)) == 5
    with pytest.raises(UsageError, match="`since` needs a time zone"):
        store.runs(since=dt.datetime(2025, 1, 1))  # noqa: DTZ001 - that is what it is about


def test_the_list_as_text_and_as_html(store: Store) -> None:
    text = repr(store.runs("digits"))
    assert text.splitlines()[0] == "2 audited runs"
    assert "\x1b" not in text
    assert text.splitlines()[1].split() == [
        *("project", "run_name", "status", "checkpoints", "regime", "transitions", "audited_at", "run_id"),
    ]
    assert store.runs("digits")._repr_html_().count("<tr>") == 3


def test_a_long_list_says_what_it_leaves_out(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.write_runs([audit(key_of(f"r{number:03}"), rows=3) for number in range(45)])
    assert repr(store.runs()).splitlines()[-1] == "and 5 more; .to_pandas() has all"
    assert repr(Store.open(tmp_path / "none").runs()).startswith("0 audited runs")


def test_query_answers_in_arrow(store: Store) -> None:
    assert store.query("select count(*) as n from runs").to_pylist() == [{"n": 5}]
    assert isinstance(store.query("audits"), pa.Table)


def test_a_run_of_an_earlier_moment(store: Store) -> None:
    assert store.at(dt.datetime.now(dt.UTC)).run("1f99").key == RunKey("mlflow", "sweep", "1f99", "grok-s1")


def test_a_frame_of_any_table_with_or_without_the_keys(store: Store) -> None:
    run = store.run("1f99")
    assert run.to_pandas("transitions").columns[0] == "group"
    assert set(run.to_pandas("gaps", keys=True).columns) - set(run.to_polars("gaps").columns) == {
        *("tracker", "project_key", "project", "run_id", "run_name", "audit_id", "settings_hash", "schema_version"),
    }
    assert run.to_pandas("runs")["run_name"][0] == "grok-s1"
    with pytest.raises(UsageError, match=r"there is no table 'gap'.*did you mean 'gaps'\?"):
        run.to_pandas("gap")

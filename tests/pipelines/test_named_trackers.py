"""Trackers by name in spectral-edge.toml: what is read, what is refused, and what comes first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from integrations.credentials import FromFile
from integrations.http_errors import without_secrets
from integrations.locate import locate
from pipelines.named_trackers import FromBlock, places
from pipelines.settings import load_settings, sources_of
from pipelines.sources import located
from spectral_edge.errors import AccessDeniedError, NotFoundError, UsageError

SECRET = "s3cr3t-of-nobody-at-all"
BOTH = """
sources = ["prod:exp-a", "wb:project", "lab:sweep"]
annotate = "none"
workers = 3

[trackers.prod]
kind = "mlflow"
uri = "https://mlflow.example.org/base"
token = {env = "PROD_TOKEN"}
state = ["failed", "killed"]
into = "child"
annotate = "summary"
workers = 2

[trackers.wb]
kind = "wandb"
base_url = "https://wandb.example.org"
api_key = {file = "key"}
entity = "team"
concurrency_limit = "their-server"

[trackers.lab]
kind = "dir"
path = "/data/runs"
"""


def written(text: str) -> None:
    Path("spectral-edge.toml").write_text(text)


def test_sources_by_name() -> None:
    written(BOTH)
    settings = load_settings()
    assert sources_of(None, settings) == ("prod:exp-a", "wb:project", "lab:sweep")
    assert sources_of(["dir:x"], settings) == ("dir:x",)
    found = [located(source, settings) for source in settings.sources]
    assert [(tracker.kind, selection.container) for tracker, selection in found] == [
        ("mlflow", "exp-a"),
        ("wandb", "team/project"),
        ("dir", "/data/runs/sweep"),
    ]
    assert [settings.tracker_name(source) for source in ("prod:a", "mlflow:a")] == ["prod", None]
    assert [settings.concurrency_limit(source) for source in ("prod:a", "wb:a", "dir:a")] == [
        "prod",
        "their-server",
        None,
    ]


def test_what_a_tracker_says_comes_before_the_file_and_after_flags_and_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written(BOTH)
    told = load_settings().of_source("prod:exp-a")
    assert (told.state, told.into, told.annotate, told.workers) == (("failed", "killed"), "child", "summary", 2)
    assert load_settings().of_source("dir:x").annotate == "none"
    assert load_settings(state="running").of_source("prod:exp-a").state == ("running",)
    monkeypatch.setenv("SPECTRAL_EDGE_WORKERS", "5")
    assert load_settings().of_source("prod:exp-a").workers == 5


def test_settings_survive_the_way_through_prefect_and_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    written(BOTH)
    monkeypatch.setenv("PROD_TOKEN", SECRET)
    settings = load_settings()
    recorded = settings.model_dump_json()
    assert SECRET not in recorded + repr(settings) + repr(places(settings.trackers))
    again = type(settings).model_validate(json.loads(recorded))
    assert again.trackers == settings.trackers
    assert again.of_source("prod:a").workers == 2


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (f'kind = "mlflow"\nuri = "http://h"\ntoken = "{SECRET}"', "`trackers.x.token`: must not be written here"),
        (f'kind = "mlflow"\nuri = "http://me:{SECRET}@h"', "`trackers.x.uri`: must not hold a secret"),
        (f'kind = "mlflow"\nuri = "postgresql://me:{SECRET}@h/db"', "`password` as"),
        (f'kind = "mlflow"\nuri = "mssql://h/db?pwd={SECRET}"', "must not hold a secret"),
        (f'kind = "wandb"\napi_key = "{SECRET}"', "`trackers.x.api_key`: must not be written here"),
        (f'kind = "wandb"\napi_key = {{env = "A", file = "{SECRET}"}}', "`trackers.x.api_key`: must be one of"),
        (f'kind = "wandb"\napi_key = {{secret = "{SECRET}"}}', "`trackers.x.api_key.secret`: extra inputs"),
        (f'kind = "wandb"\napi_key = {{block = "json/{SECRET}"}}', "must name a Secret block"),
        ('kind = "wandb"\nbase_url = "http://h"', "needs `api_key`"),
        (f'kind = "mlflow"\nuri = "http://h"\npassword = "{SECRET}"', "`trackers.x.password`: must not"),
        ('kind = "mlflow"\nuri = "http://h"\nusername = "me"', "takes `username` and `password` together"),
        ('kind = "mlflow"', "`trackers.x.uri`: field required"),
        ('kind = "mlfow"', "`trackers.x`: input tag 'mlfow'"),
        ('kind = "dir"\npath = "/data"\nworkers = 0', "`trackers.x.workers`: input should be greater"),
        (f'kind = "dir"\npath = "/data"\ntoken = "{SECRET}"', "`trackers.x.token`: extra inputs"),
    ],
)
def test_a_wrong_table_is_refused_without_repeating_a_secret(table: str, said: str) -> None:
    written(f"[trackers.x]\n{table}\n")
    with pytest.raises(UsageError) as caught:
        load_settings()
    assert said in str(caught.value)
    assert "file spectral-edge.toml" in str(caught.value)
    assert SECRET not in str(caught.value) + repr(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("name", ["mlflow", "wandb", "wandb-offline", "dir", '"a:b"', '""', '"a b"'])
def test_a_name_that_cannot_be(name: str) -> None:
    written(f'[trackers.{name}]\nkind = "dir"\npath = "/data"\n')
    with pytest.raises(UsageError, match=r"is a kind of source|a tracker's name is"):
        load_settings()


def test_a_name_that_is_not_known_is_told_with_those_that_are() -> None:
    written(BOTH)
    with pytest.raises(UsageError, match=r"prod:EXPERIMENT.*write prod:exp\.") as caught:
        located("pord:exp", load_settings())
    assert "dir:PATH" in str(caught.value)


def test_no_source_at_all() -> None:
    with pytest.raises(UsageError, match=r"no source was given.*sources ="):
        sources_of([], load_settings())


def test_sources_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRAL_EDGE_SOURCES", "dir:a, dir:b")
    monkeypatch.setenv("SPECTRAL_EDGE_TRACKERS", '{"lab": {"kind": "dir", "path": "/data"}}')
    settings = load_settings()
    assert settings.sources == ("dir:a", "dir:b")
    assert located("lab:x", settings)[1].container == "/data/x"
    monkeypatch.setenv("SPECTRAL_EDGE_SOURCES", '["dir:a, b"]')
    assert load_settings().sources == ("dir:a, b",)
    monkeypatch.setenv("SPECTRAL_EDGE_TRACKERS", f'{{"lab": "{SECRET}')
    with pytest.raises(UsageError, match="environment variable SPECTRAL_EDGE_TRACKERS") as caught:
        load_settings()
    assert SECRET not in str(caught.value)


def test_a_block_without_a_server_that_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(AccessDeniedError, match=r"block secret/x is kept by a Prefect server.*PREFECT_API_URL"):
        FromBlock("x").reveal()


def test_a_tracker_without_its_secret_is_told_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    written(BOTH)
    monkeypatch.delenv("PROD_TOKEN", raising=False)
    tracker, selection = located("prod:a", load_settings())
    with pytest.raises(AccessDeniedError, match=r"environment variable PROD_TOKEN is empty or not set.*set PROD_TOKEN"):
        list(tracker.runs(selection))


def test_a_file_that_others_can_read_is_no_place_for_a_secret(tmp_path: Path) -> None:
    secret = FromFile(tmp_path / "key")
    with pytest.raises(NotFoundError, match="key"):
        secret.reveal()
    secret.path.write_text(f"{SECRET}\n")
    secret.path.chmod(0o644)
    with pytest.raises(AccessDeniedError, match=r"mode 0644.*chmod 600") as caught:
        secret.reveal()
    assert SECRET not in str(caught.value)
    secret.path.chmod(0o600)
    assert secret.reveal() == SECRET
    assert without_secrets(f"not {SECRET}") == "not ***"


def test_named_places_need_no_settings() -> None:
    with pytest.raises(UsageError, match="prod"):
        locate("prod:exp")

"""Settings: which source wins, and what is said about a wrong value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from integrations.selection import Criteria
from pipelines.settings import AuditSettings, load_settings
from spectral_edge.errors import UsageError
from spectral_edge.settings import Settings, same_pass


def refused(text: str = "", /, **flags: object) -> str:
    if text:
        Path("spectral-edge.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_settings(**flags)
    return str(caught.value)


def test_defaults_are_those_of_the_analysis() -> None:
    assert load_settings().analysis() == Settings()
    assert load_settings().store == "spectral-edge-store"
    assert load_settings().max_disk == 20_000_000_000


def test_flags_win_over_environment_over_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("spectral-edge.toml").write_text('window = 5\nlags = 40\nstore = "from-file"\nworkers = 3\n')
    monkeypatch.setenv("SPECTRAL_EDGE_WINDOW", "6")
    monkeypatch.setenv("SPECTRAL_EDGE_STORE", "from-environment")
    settings = load_settings(window=7, store=None)
    assert (settings.window, settings.store, settings.lags, settings.workers) == (7, "from-environment", 40, 3)


def test_an_empty_variable_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRAL_EDGE_WINDOW", "")
    assert load_settings().window == 10


@pytest.mark.parametrize(("given", "n_bytes"), [("20GB", 20 * 10**9), ("500MiB", 500 * 2**20), ("1000", 1000)])
def test_sizes_as_people_write_them(given: str, n_bytes: int) -> None:
    assert load_settings(max_disk=given).max_disk == n_bytes


def test_a_wrong_state_is_named() -> None:
    assert "running, finished, failed, killed, unknown, separated by commas, got 'done'" in refused(state="failed,done")


def test_an_age_counts_from_the_audit_and_a_date_stays() -> None:
    Path("spectral-edge.toml").write_text("since = 2026-01-31\nstate = ['failed', 'killed']\nfilter = 'params.a = 1'")
    moved = load_settings().criteria()
    assert moved == Criteria("params.a = 1", ("failed", "killed"), datetime(2026, 1, 31, tzinfo=UTC))
    since = load_settings(since="7d").criteria().since
    assert since is not None
    age = datetime.now(UTC) - since
    assert timedelta(days=7) <= age < timedelta(days=7, minutes=5)
    assert load_settings(state=" failed , killed ").criteria().states == ("failed", "killed")


def test_all_runs_at_once_share_the_disk() -> None:
    assert load_settings(max_disk="1GB", workers=4).max_disk_per_run == 250_000_000


WRONG: Mapping[str, object] = {
    "window": 2,
    "lags": -1,
    "false_alarm_rate": 1,
    "device": "tpu",
    "annotate": "some",
    "into": "parent",
    "workers": 0,
    "max_disk": "20 parsecs",
    "store": "",
    "metric": "",
    "series": "",
    "filter": "",
    "state": "finished,done",
    "since": "yesterday",
    "metric_direction": "up",
    "learning_rate_metric": "",
    "learning_rate_param": "",
    "weight_decay_param": "",
}


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_value_names_key_value_and_what_is_allowed(key: str) -> None:
    message = refused(**{key: WRONG[key]})
    assert f"`{key}` must be {AuditSettings.model_fields[key].description}" in message
    assert f"got {WRONG[key]!r}" in message or key == "state"
    assert f"--{key.replace('_', '-')}" in message


def test_a_wrong_value_tells_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "file spectral-edge.toml" in refused("window = 1")
    monkeypatch.setenv("SPECTRAL_EDGE_WINDOW", "one")
    assert "environment variable SPECTRAL_EDGE_WINDOW" in refused()


NAMED: Mapping[str, str] = {
    "metric_direction": "lower",
    "learning_rate_metric": "alpha",
    "learning_rate_param": "alpha",
    "weight_decay_param": "l2",
}


@pytest.mark.parametrize("key", NAMED)
def test_what_a_run_says_under_other_names_is_another_audit_of_the_same_pass(key: str) -> None:
    named = load_settings(**{key: NAMED[key]}).analysis()
    assert getattr(named, key) == NAMED[key]
    assert named.hash != Settings().hash
    assert same_pass(Settings().as_json(), named)
    assert same_pass(named.as_json(), Settings())


def test_names_left_to_us_leave_the_hash_as_it_was_before_they_could_be_given() -> None:
    assert not set(json.loads(Settings().as_json())) & set(NAMED)
    assert json.loads(Settings().as_json())["metric"] is None


def test_a_learning_rate_is_named_once() -> None:
    assert "one of `learning_rate_metric` and" in refused(learning_rate_metric="lr", learning_rate_param="lr")
    with pytest.raises(UsageError, match="must be higher or lower"):
        Settings(metric_direction="up")  # type: ignore[arg-type]


def test_lags_below_window_are_refused() -> None:
    assert "`lags` must be at least `window` (12), got 11" in refused(window=12, lags=11)


def test_an_unknown_key_in_the_file_suggests_the_known_one() -> None:
    assert "no setting is called `windwo`. Next: did you mean `window`?" in refused("windwo = 5")
    assert "known keys are annotate, dask, device" in refused("[zzz]\nqqq = 5")


def test_a_file_that_is_not_toml_is_named() -> None:
    assert refused("window = = 5").startswith("file spectral-edge.toml: is not valid TOML")


def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert load_settings(device="auto").torch_device() == "cpu"
    with pytest.raises(UsageError, match="finds no CUDA device"):
        load_settings(device="cuda").torch_device()


def test_auto_takes_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert load_settings().torch_device() == "cuda"
    assert load_settings(device="cpu").torch_device() == "cpu"


def test_a_tracking_address_is_not_shown() -> None:
    settings = load_settings(tracking_uri="postgresql://user:secret@host/db")
    assert "secret" not in repr(settings)
    assert "secret" not in settings.model_dump_json()
    assert settings.tracking_address == "postgresql://user:secret@host/db"

"""Which kinds of tensors are followed: asked for by flag, file or environment, and told by the hash."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.settings import load_settings
from spectral_edge.api import analyse
from spectral_edge.errors import UsageError
from spectral_edge.settings import Settings, same_pass


def test_given_as_words_with_commas_or_as_a_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings().include == ("parameters",)
    assert load_settings(include="buffers, parameters").analysis().include == ("parameters", "buffers")
    monkeypatch.setenv("SPECTRAL_EDGE_INCLUDE", "averaged")
    assert load_settings().include == ("averaged",)
    monkeypatch.delenv("SPECTRAL_EDGE_INCLUDE")
    Path("spectral-edge.toml").write_text('include = ["parameters", "tied"]\n')
    assert load_settings().include == ("parameters", "tied")


@pytest.mark.parametrize("given", ["all", "", "parameters,weights"])
def test_an_unknown_kind_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="`include` must be one or more of parameters, buffers"):
        load_settings(include=given)


@pytest.mark.parametrize("given", [(), ("weights",)])
def test_settings_of_the_science_refuse_it_too(given: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="`include` must name"):
        Settings(include=given)  # type: ignore[arg-type]


def test_the_hash_tells_kinds_apart_and_not_their_order() -> None:
    both = Settings(include=("buffers", "parameters"))
    assert both.hash == Settings(include=("parameters", "buffers", "parameters")).hash
    assert both.hash != Settings().hash
    assert same_pass(both.as_json(), Settings(window=5, include=("parameters", "buffers")))
    assert not same_pass(both.as_json(), Settings())
    assert not same_pass(None, Settings())


def test_what_is_followed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for step in range(4):
        weights = {"norm.weight": torch.randn(5), "norm.running_mean": torch.randn(5), "head.weight": torch.randn(3)}
        saved = {"model": weights, "ema_model": {name: value / 2 for name, value in weights.items()}}
        torch.save(saved | {"optimizer": {"state": {0: {"exp_avg": torch.randn(7)}}}}, tmp_path / f"step_{step}.pt")
    counts = {
        kinds: analyse(tmp_path, settings=Settings(window=3, include=kinds)).gaps["n_parameters"].to_pylist()[0]
        for kinds in ((("parameters",)), ("parameters", "buffers"), ("averaged",), ("optimizer",))
    }
    assert list(counts.values()) == [8, 13, 13, 7]

"""Completion in a real bash: what Tab offers after what was typed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from terminals import COMMAND, environment

TYPED = {
    "spectral-edge co": {"compact"},
    "spectral-edge audit --ann": {"--annotate"},
    "spectral-edge audit --annotate s": {"summary"},
    "spectral-edge audit l": {"lab:"},
    "spectral-edge query wid": {"widest_gaps"},
    "spectral-edge export x.csv --table tr": {"transitions"},
    "spectral-edge scorecard --run fi": {"first"},
    "spectral-edge scorecard --store nowhere --run fi": set(),
    "spectral-edge export x --project t": {"toy"},
}


def in_bash(place: Path, script: str) -> str:
    """What `script` prints, and nothing on stderr."""
    shell = ["bash", "--norc", "-c", script]
    done = subprocess.run(shell, cwd=place, env=environment(), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_bash_completes(place: Path) -> None:
    (place / "spectral-edge.toml").write_text('[trackers.lab]\nkind = "dir"\npath = "runs"\n')
    asked = [in_bash(place, f"{COMMAND} --show-completion; true"), "complete -p spectral-edge"]
    for line in TYPED:
        asked += [f"COMP_WORDS=({line}); COMP_CWORD={len(line.split()) - 1}; _spectral_edge_completion {COMMAND}"]
        asked += ['printf "%s," "${COMPREPLY[@]}"; echo']
    registered, *offered = in_bash(place, "\n".join(asked)).splitlines()
    (place / "spectral-edge.toml").unlink()
    assert registered == "complete -o default -F _spectral_edge_completion spectral-edge"
    found = {line: {word for word in words.split(",") if word} for line, words in zip(TYPED, offered, strict=True)}
    assert found == TYPED

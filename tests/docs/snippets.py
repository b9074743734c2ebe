"""Blocks of code in the documentation, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import typer
from markdown_it import MarkdownIt
from typer.core import TyperGroup

from pipelines.cli import app
from pipelines.settings import AuditSettings, load_settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "deploy/README.md", *(ROOT / "docs").rglob("*.md")])


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: Path of the page from the root of the repository.
        line: Number of its first line there, from 1.
        language: As the fence names it; "" without one, and of an indented block.
        text: What is in it.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All blocks of code in `page`, fenced or indented."""
    name = page.relative_to(ROOT).as_posix()
    tokens = [token for token in MarkdownIt().parse(page.read_text()) if token.type in {"fence", "code_block"}]
    return [Block(name, (token.map or [0])[0] + 1, token.info.strip(), token.content) for token in tokens]


_KEYWORDS = {"if", "then", "else", "fi", "while", "until", "do", "done", "!"}

ALL = [block for page in PAGES for block in blocks(page)]


def commands(text: str) -> Iterator[list[str]]:
    """Words of each command in a piece of shell script, without comments, redirections, and variables set for it."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>()")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if re.fullmatch(r"[&|;()]+", word):
                yield from _without_variables(words)
                words = []
            else:
                words.append(word)
        yield from _without_variables(words)


def _without_variables(words: list[str]) -> Iterator[list[str]]:
    redirected = next((at for at, word in enumerate(words) if re.fullmatch(r"\d?[<>]+", word)), len(words))
    kept = words[:redirected]
    while kept and (kept[0] in _KEYWORDS or re.fullmatch(r"\w+=.*", kept[0], flags=re.DOTALL)):
        kept = kept[1:]
    if kept:
        yield kept


def parsed(arguments: list[str]) -> tuple[str, dict[str, object]]:
    """Name and parameters of a call of `spectral-edge`, by the command line itself, which does nothing else with it.

    Raises:
        click.UsageError: There is no such command, argument or option, or a value is none of those allowed.
        SpectralEdgeError: A setting is out of its range.
    """
    command = known(arguments[0])
    with command.make_context(arguments[0], arguments[1:]) as told:
        load_settings(**{key.rstrip("_"): _plain(value) for key, value in told.params.items() if _is_setting(key)})
        return arguments[0], dict(told.params)


def known(name: str) -> click.Command:
    """The command of this name.

    Raises:
        click.UsageError: There is none.
    """
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    if name.startswith("-"):  # an option of the program itself, such as --version
        return root if any(name in it.opts for it in root.params) else _none(name)
    return root.get_command(click.Context(root), name) or _none(name)


def _none(name: str) -> click.Command:
    raise click.UsageError(f"there is no command or option `{name}`")


def _is_setting(parameter: str) -> bool:
    return parameter.rstrip("_") in set(AuditSettings.model_fields) - {"sources"}


def _plain(value: object) -> object:
    """As the commands hand it on: false is not given, and a word of an enumeration is its text."""
    return None if value is False else getattr(value, "value", value)

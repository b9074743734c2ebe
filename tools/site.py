"""Hooks of MkDocs (mkdocs.yml): the site has the repository's files under the paths that they have there.

So a link between pages, to a README or to code leads to the same place on the site as in the repository, and none is
rewritten. The pages are those of docs/, and those outside of it that mkdocs.yml lists; other files are those that a
page links to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).resolve().parent.parent
DECISIONS: Final = "docs/decisions"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the decisions, in the order of their file names."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / DECISIONS).glob("*.md"))
    if found and config.nav is not None:
        config.nav.insert(-1, {"Decisions": found})
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """The pages and what they link to, by their paths from the root of the repository."""
    of_theme = [file for file in files if file.src_dir != config.docs_dir]
    pages = {file.src_uri for file in files if file.is_documentation_page() and file not in of_theme}
    outside = {path for path in _paths(config.nav) if not path.startswith("docs/")}
    paths = {f"docs/{uri}" for uri in pages} | outside
    paths |= {target for path in paths if path.endswith(".md") for target in linked_files(ROOT / path)}
    paths.update(config.extra["polyfills"], config.extra_css)
    return Files([*of_theme, *(_file(path, config) for path in sorted(paths))])


def linked_files(page: Path) -> Iterator[str]:
    """Files of the repository, other than pages, that the Markdown in `page` links to or shows."""
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(<?([^)>\s#]+)", prose):
        path = (page.parent / target).resolve()
        if path.is_file() and path.is_relative_to(ROOT) and path.suffix != ".md":
            yield path.relative_to(ROOT).as_posix()


def _paths(nav: object) -> Iterator[str]:
    """All paths in a `nav` of mkdocs.yml."""
    if isinstance(nav, str):
        yield nav
    for entry in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _paths(entry)


def _file(path: str, config: MkDocsConfig) -> File:
    return File(path, str(ROOT), config.site_dir, config.use_directory_urls)

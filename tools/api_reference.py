"""What the docstrings say of the public Python API: the reference in docs/api.md, and its signatures as text.

Public is what `spectral_edge.__all__` names, with the public members of those classes, and the errors.
`python tools/api_reference.py` prints the signatures.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import griffe

import spectral_edge

ROOT: Final = Path(__file__).resolve().parent.parent
BEGIN: Final = "<!-- Written by `make reference` from the docstrings of spectral_edge; edit those. -->\n"
END: Final = "<!-- End of what is written from the docstrings. -->\n"
_WIDTH: Final = 100
_MADE_ELSEWHERE: Final = frozenset({"AuditedRun", "RunList", "Store"})
"""Classes whose constructors are not public: `analyse`, `Store.run`, `Store.runs` and `Store.open` make them."""
_Documented = griffe.Class | griffe.Function


def api_page(page: str) -> str:
    """The text of docs/api.md, `page`, with what stands between the marks written anew."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return "".join([before, BEGIN, "\n", *_reference(), END, after])


def public_signatures() -> str:
    """One line for each public name and member: what a test pins, so that it changes on purpose only."""
    lines: list[str] = []
    for name, documented in _public():
        if isinstance(documented, griffe.Function):
            lines.append(documented.signature(return_type=True))
        else:
            lines += [_of_class(documented), *(f"{name}.{line}" for line in _member_lines(documented))]
    lines += [f"errors.{_of_class(kind)}" for kind in _package()["errors"].classes.values()]
    return "\n".join([*lines, ""])


@cache
def _package() -> griffe.Object | griffe.Alias:
    return griffe.load("spectral_edge", search_paths=[ROOT], resolve_aliases=True)


def _public() -> Iterator[tuple[str, _Documented]]:
    for name in spectral_edge.__all__:
        documented = _package()[getattr(spectral_edge, name).__module__.removeprefix("spectral_edge.")][name]
        if not isinstance(documented, _Documented):
            raise TypeError(f"{name} should be a class or a function, got {documented.kind.value}")
        yield name, documented


def _of_class(documented: griffe.Class) -> str:
    bases = ", ".join(str(base) for base in documented.bases)
    return f"class {documented.name}({bases})" if bases else f"class {documented.name}"


def _member_lines(documented: griffe.Class) -> Iterator[str]:
    init = documented.all_members.get("__init__")
    if isinstance(init, griffe.Function) and documented.name not in _MADE_ELSEWHERE:
        yield init.signature()
    for name, found in documented.all_members.items():
        if name.startswith("_"):
            continue
        member = found.final_target if isinstance(found, griffe.Alias) else found
        if isinstance(member, griffe.Function):
            yield member.signature(return_type=True)
        elif isinstance(member, griffe.Attribute):
            yield f"{name}: {member.annotation}"


def _reference() -> Iterator[str]:
    for name, documented in _public():
        yield f"### {name}\n\n"
        if isinstance(documented, griffe.Function):
            yield _code(documented.signature(return_type=True))
        elif name not in _MADE_ELSEWHERE:
            yield _code(documented.signature(name=name))
        yield from _described(documented)
        if isinstance(documented, griffe.Class):
            yield from _members(documented)


def _members(documented: griffe.Class) -> Iterator[str]:
    for name, member in documented.members.items():
        if name.startswith("_") or not member.has_docstring:
            continue
        if isinstance(member, griffe.Function):
            yield f"#### {documented.name}.{name}\n\n"
            yield _code(member.signature(return_type=True))
            yield from _described(member)
        elif isinstance(member, griffe.Attribute) and "property" in member.labels:
            yield f"#### {documented.name}.{name}\n\n"
            yield _code(f"{name}: {member.annotation}")
            yield from _described(member)


def _described(documented: griffe.Object) -> Iterator[str]:
    if documented.docstring is None:
        return
    for section in documented.docstring.parse("google", warnings=False):
        match section:
            case griffe.DocstringSectionText():
                yield f"{_plain(section.value)}\n\n"
            case griffe.DocstringSectionParameters() | griffe.DocstringSectionAttributes():
                yield f"{section.kind.value.capitalize()}:\n\n"
                yield from (f"- `{one.name}`: {_line(one.description)}\n" for one in section.value)
                yield "\n"
            case griffe.DocstringSectionReturns():
                yield f"Returns: {' '.join(_line(one.description) for one in section.value)}\n\n"
            case griffe.DocstringSectionRaises():
                raised = [f"- `{one.annotation}`: {_line(one.description)}\n" for one in section.value]
                yield from ["Raises:\n\n", *raised, "\n"]
            case griffe.DocstringSectionExamples():
                yield from (_code(text) if kind == "examples" else f"{text}\n\n" for kind, text in section.value)
            case _:
                raise TypeError(f"{documented.path}: a section of {section.kind.value} has no form here yet")


def _code(text: str) -> str:
    """Python in Markdown; a signature that is too long has a line for each argument."""
    if "\n" not in text and len(text) > _WIDTH:
        head, _, rest = text.partition("(")
        arguments, _, tail = rest.rpartition(")")
        listed = "".join(f"    {argument},\n" for argument in re.split(r", (?![^\[(]*[\])])", arguments))
        text = f"{head}(\n{listed}){tail}"
    return f"```python\n{text}\n```\n\n"


def _line(text: str) -> str:
    return " ".join(_plain(text).split())


def _plain(text: str) -> str:
    """A docstring's text as Markdown: roles of Sphinx become code, and what a person reads stays."""
    return re.sub(r":\w+:`~?(?:spectral_edge\.)?([^`]+)`", r"`\1`", text.strip())


if __name__ == "__main__":
    sys.stdout.write(public_signatures())

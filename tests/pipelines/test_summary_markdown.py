"""What Prefect's page of a flow run shows of an audit."""

from __future__ import annotations

import html
import re

from markdown_it import MarkdownIt

from pipelines.results import AuditSummary, RunResult
from pipelines.summary_markdown import PAGES_SHOWN, SHOWN, WebLink, pages_of, summary_markdown
from pipelines.wording import markdown_text

CORPUS = (
    "[x](http://evil.example) <b>B</b> **s** _u_ `c` ~~t~~ | # a",
    "![x](http://evil.example/a.png)",
    "https://evil.example www.evil.example a@b.co",
    "<img src=x onerror=1>",
    "- a",
    "plain-name_with.parts (copy) 1 < 2 & 3",
    "&#42; \\* \\",
)


def test_failures_and_changes_have_links_and_nothing_is_markup() -> None:
    runs = (
        RunResult("broken", "1", "failed", error="file a: truncated. Next: fetch it again."),
        RunResult("[x](http://evil) <b>", "2", "audited", regime="plateau", transitions=2),
        RunResult("quiet", "3", "unchanged"),
        RunResult("local", "4", "audited", regime="plateau", transitions=1),
    )
    addresses = {"1": "https://mlflow.example/#/runs/1", "2": "https://h/a) [b](javascript:x", "4": "javascript:x"}
    lines = summary_markdown(AuditSummary("mlflow:a", runs), addresses).splitlines()
    assert "- [broken](https://mlflow.example/#/runs/1): file a: truncated. Next: fetch it again." in lines
    hostile = next(line for line in lines if "evil" in line)
    assert len(re.findall(r"(?<!\\)\]\(", hostile)) == 1
    assert not re.search(r"(?<!\\)<", hostile)
    assert "](https://h/a%29%20%5Bb%5D%28javascript:x)" in hostile
    assert next(line for line in lines if "local" in line).startswith("- local: 1 change")
    assert not any("quiet" in line for line in lines)


def test_long_lists_are_cut_and_say_so() -> None:
    runs = tuple(RunResult(f"r{i}", str(i), "failed", error="bad") for i in range(SHOWN + 3))
    assert summary_markdown(AuditSummary("dir:a", runs), {}).endswith("- and 3 further runs")


def test_one_run_is_linked_itself_and_of_several_the_pages_of_their_projects() -> None:
    runs = tuple(RunResult(name, name, "audited", project=f"p{name}") for name in ("a", "b", "c"))
    home = "https://mlflow.example/#/experiments"
    addresses = {"a": f"{home}/1/runs/a", "b": f"{home}/2/runs/b", "c": "file:///runs/c"}
    assert pages_of(AuditSummary("mlflow:*", runs), addresses) == [
        WebLink("pa", f"{home}/1"),
        WebLink("pb", f"{home}/2"),
    ]
    assert pages_of(AuditSummary("mlflow:pa", runs[:1]), addresses) == [WebLink("a", f"{home}/1/runs/a")]
    assert pages_of(AuditSummary("dir:runs", runs[2:]), addresses) == []
    assert pages_of(AuditSummary("mlflow:pa", ()), addresses) == []


def test_pages_are_few_and_no_markup() -> None:
    runs = tuple(RunResult(f"r{i}", f"{i}", "audited", project=f"](x) <b> {i}") for i in range(2 * PAGES_SHOWN))
    pages = pages_of(AuditSummary("wandb:e/*", runs), {f"{i}": f"https://h/e/p) [{i}](/runs/{i}" for i in range(99)})
    assert len(pages) == PAGES_SHOWN
    for page in pages:
        assert not re.search(r"(?<!\\)[\[\]<]", page.text)
        assert not set("()[] ") & set(page.address)


def test_names_are_read_as_they_are() -> None:
    """By Python's parser of CommonMark. Prefect's own is JavaScript's marked, which links bare addresses too."""
    markdown = MarkdownIt("commonmark").enable("strikethrough")
    for name in CORPUS:
        shown = markdown.render(f"- {markdown_text(name)}")
        assert html.unescape(shown) == f"<ul>\n<li>{name}</li>\n</ul>\n"
        assert not re.search(r"(?<!\\)://|www\.e|[a-z]@", markdown_text(name)), "no bare address is left"

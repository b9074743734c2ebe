"""Writes what says the same as the code: most of the reference in docs/, and deploy/prefect.yaml.

`python tools/reference.py` writes them; with `--check` it only tells, by exit code 1, that one is out of date.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import typer
import yaml
from api_reference import api_page
from settings_reference import cell, settings_page
from typer.core import TyperGroup
from written_names import with_names

from pipelines.cli import app
from pipelines.cli_run import EXIT_CODES
from pipelines.deployments import prefect_yaml
from pipelines.json_schemas import NAMES, schema_of
from spectral_edge import audit_log
from spectral_edge.tables import SCHEMA_VERSION, SCHEMAS

DOCS = Path(__file__).resolve().parent.parent / "docs"
GENERATED = "<!-- Written by `make reference` from {source}; edit that. -->\n"

TABLES_INTRODUCTION = """\
Version {version} of the schemas. All seven are Delta tables in the store, partitioned by `tracker` and `project_key`;
`spectral-edge query` sees them under these names. Null always means that the value is not known, never zero. `group` is
a word of SQL, so write it in double quotes. Which regimes did each run go through?

```sql
select project, run_name, regime, count(*) as windows, min(step) as first_step, max(step) as last_step
from gaps
where "group" = 'total' and not short
group by all
order by project, run_name, first_step
```

Was it the gap that moved first, or the evaluation metric?

```sql
select run_name, weight_decay, "group", kind, onset_step, q_value, lead_steps, lead_low, lead_high
from transitions join runs using (tracker, project, run_id, run_name)
order by q_value
```
"""
EXIT_INTRODUCTION = """\
Every command ends with one of these. An error is one line on stderr, which says what to do next.
[scripting.md](scripting.md) says what else scripts may rely on.
"""
DEPLOYMENTS_INTRODUCTION = """\
# Written from pipelines/deployments.py by `make reference`; edit that. `spectral-edge deploy` registers the same
# without this file; it makes the work pool and the concurrency limits too, which `prefect deploy --all` does not.
"""
ABOUT = {
    "runs": "One row for each audited run: what it is, how the audit went, and what came out.",
    "inner_products": "The band (theory 2): inner products of updates, from which a later analysis with another window "
    "is made without reading a checkpoint again.",
    "gaps": "One row for each window and parameter group: the spectrum, its gap, how it moves, and the regime.",
    "transitions": "One row for each change that passed its test.",
    audit_log.TABLE: "One row for each time that something was written to a run or taken back, and for each alert "
    "([observability.md](observability.md)). Rows are only ever added; `query` and `compact` know the table, `export` "
    "and `import` do not. A store that an earlier version wrote gets it with the next audit.",
    "scorecard": "One row for each prediction of the thesis and run: whether it holds there, and what decided "
    "([scorecard.md](scorecard.md)). A store that an earlier version wrote gets it with the next audit.",
    "metrics": "Points of the run's own metrics ([training-record.md](training-record.md#what-is-kept)), at most 500 "
    "of each: the first, the last, and the lowest and highest of each stretch between. A store of an earlier version "
    "gets the table with the next audit, and a run its rows when it is analysed again.",
}


def tables_page() -> str:
    """docs/tables.md."""
    parts = [
        "# The tables\n",
        GENERATED.format(source="spectral_edge/tables.py"),
        TABLES_INTRODUCTION.format(version=SCHEMA_VERSION),
    ]
    for name, schema in {**SCHEMAS, audit_log.TABLE: audit_log.SCHEMA}.items():
        parts += [f"## {name}\n", f"{ABOUT[name]}\n", "| column | type | unit | meaning |", "|---|---|---|---|"]
        parts += [*(_column_row(field) for field in schema), ""]
    return "\n".join(parts)


def _column_row(field: pa.Field) -> str:
    facts = {key.decode(): value.decode() for key, value in field.metadata.items()}
    kind = str(field.type).replace("element", "item")
    return f"| `{field.name}` | {kind} | {facts.get('unit', '')} | {cell(facts['meaning'])} |"


def cli_page() -> str:
    """docs/cli.md: what `--help` prints."""
    root = typer.main.get_command(app)
    if not isinstance(root, TyperGroup):
        raise TypeError(f"the command line should be a group of commands, not {type(root).__name__}")
    parts = ["# The command line\n", GENERATED.format(source="pipelines/cli.py"), *_help_section()]
    for name in root.list_commands(typer.Context(root)):
        parts += [f"## spectral-edge {name}\n", *_help_section(name)]
    parts += [f"## Exit codes\n\n{EXIT_INTRODUCTION}", "| code | meaning |", "|---|---|"]
    parts += [*(f"| {code} | {cell(meaning)} |" for code, meaning in EXIT_CODES.items()), ""]
    parts += ["## Settings\n", "Most flags have a setting of the same name: [settings.md](settings.md)."]
    return "\n".join([*parts, ""])


def _help_section(*command: str) -> list[str]:
    # In a process of its own: typer takes the width when it is imported.
    done = subprocess.run(  # noqa: S603 - the command's own name
        [sys.executable, "-c", "from pipelines.cli import main; main()", *command, "--help"],
        env=os.environ
        | {"TERMINAL_WIDTH": "100", "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONUTF8": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    shown = [line.rstrip() for line in done.stdout.strip("\n ").splitlines()]
    return ["```text", *shown, "```\n"]


def schema_files() -> dict[Path, str]:
    """docs/json/: what `spectral-edge schema` prints."""
    return {
        DOCS / "json" / f"{name}.schema.json": json.dumps(schema_of(name), indent=2, ensure_ascii=False) + "\n"
        for name in NAMES
    }


def deployments_file() -> str:
    """deploy/prefect.yaml: the deployments that `spectral-edge deploy` registers, for `prefect deploy --all`."""
    return DEPLOYMENTS_INTRODUCTION + str(yaml.safe_dump(prefect_yaml(), sort_keys=False, width=120))


def main() -> int:
    """Write the pages, or with `--check` name those that are out of date."""
    stale = []
    pages = {
        DOCS / "tables.md": tables_page(),
        DOCS / "cli.md": cli_page(),
        DOCS / "settings.md": settings_page(app, GENERATED.format(source="pipelines/settings.py")),
        DOCS / "what-is-written.md": with_names((DOCS / "what-is-written.md").read_text()),
        DOCS / "api.md": api_page((DOCS / "api.md").read_text()),
        DOCS.parent / "deploy" / "prefect.yaml": deployments_file(),
        **schema_files(),
    }
    for path, text in pages.items():
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path)
        if "--check" not in sys.argv:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    for path in stale:
        sys.stdout.write(f"{path.relative_to(DOCS.parent)}\n")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())

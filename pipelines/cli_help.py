"""How help looks: examples to copy, panels of commands and options, and commands in the order a new user needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from typer.core import TyperCommand, TyperGroup

RUNS: Final = "Which runs"
"""A panel of options; so are those below."""
ANALYSIS: Final = "What is computed"
WRITING: Final = "What is written to the runs"
LIMITS: Final = "How much at once, and how much in all"
AGAIN: Final = "What is done again"
TELLING: Final = "What is told"

_PANELS: Final[Mapping[str, Sequence[str]]] = {
    "Start here": ("demo", "doctor", "audit"),
    "See what was found": ("runs", "report", "query", "scorecard"),
    "Look closer": ("probe", "calibrate"),
    "Take back": ("retract",),
    "By schedule": ("serve", "deploy"),
    "Keep and move the tables": ("compact", "export", "import"),
    "For scripts": ("schema",),
}

BEGIN: Final = """\
To begin, without a tracker or a GPU, in about two minutes:

spectral-edge demo

With runs of your own:

spectral-edge audit dir:path/to/runs --dry-run
spectral-edge audit dir:path/to/runs
spectral-edge report --output report.html

`spectral-edge help COMMAND` shows examples of each command. Settings also come from SPECTRAL_EDGE_* variables and \
spectral-edge.toml."""
"""What stands below the list of commands."""

_EXAMPLES: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    "audit": (
        ("see what would be read and written, and touch nothing", "audit mlflow:my-experiment --dry-run"),
        ("audit it; MLFLOW_TRACKING_URI says on which server", "audit mlflow:my-experiment"),
        ("all experiments of that name, runs of the last week", "audit 'mlflow:team-*' --since 7d"),
        ("folders of checkpoints; write nothing into them", "audit dir:path/to/runs --annotate none"),
        ("all `sources` of spectral-edge.toml, for five hours at most", "audit --max-minutes 300"),
    ),
    "query": (
        ("a question with a name", "query last_regimes"),
        ("SQL over the tables", 'query "select run_name, regime, count(*) from gaps group by all"'),
        ("as the store was two days ago, for a script", "query failures --at 2d --json"),
        ("the columns of a table", 'query "describe gaps"'),
    ),
    "runs": (
        ("what was audited, and what came out", "runs"),
        ("of a store on S3, as CSV", "runs --store s3://bucket/audits --csv"),
    ),
    "report": (
        ("one page over all runs, to open in a browser or to mail", "report --output report.html"),
        ("of a store on S3", "report --store s3://bucket/audits --output report.html"),
        ("the same in the browser, for thousands of runs, with SQL", "report --serve"),
    ),
    "demo": (
        ("train, log, audit and show", "demo"),
        ("the same with offline runs of W&B", "demo --wandb"),
    ),
    "retract": (
        ("see what would be taken back, and what cannot be", "retract mlflow:my-experiment --dry-run"),
        ("take it back, after a question", "retract mlflow:my-experiment"),
        ("of one run, without a question", "retract dir:runs --run runs/first --yes"),
    ),
    "probe": (
        ("your loss along the directions of three windows of each run", "probe dir:runs --probe my:loss --windows 3"),
    ),
    "scorecard": (
        ("all audited runs", "scorecard"),
        ("one project, and what decided in one run", "scorecard --project sweep --run my-run"),
    ),
    "calibrate": (
        ("on your own control runs, for at most 5 % of false reports", "calibrate mlflow:my-controls --target 0.05"),
    ),
    "doctor": (
        ("all sources and trackers of spectral-edge.toml", "doctor"),
        ("whether one experiment can be read and written to", "doctor mlflow:my-experiment"),
    ),
    "compact": (
        ("see what would be rewritten and deleted", "compact --dry-run"),
        ("do it, and keep the history of 30 days", "compact --keep 30d"),
    ),
    "export": (
        ("all tables of one project, to a new folder", "export march --project sweep"),
        ("one table, as CSV", "export gaps.csv --table gaps"),
        ("the answer to a query", 'export last.parquet --sql "select * from runs"'),
    ),
    "import": (
        ("see what would be taken", "import s3://other-team/audits --dry-run"),
        ("take it, also where audits here are replaced by newer ones", "import march --yes"),
    ),
    "deploy": (
        ("see what would be registered", "deploy mlflow:my-experiment --dry-run"),
        ("register it; PREFECT_API_URL says with which server", "deploy mlflow:my-experiment"),
    ),
    "serve": (("audit by schedule on this machine, until Ctrl-C", "serve mlflow:my-experiment"),),
    "schema": (
        ("of what `audit --json` prints", "schema audit"),
        ("the names of all schemas", "schema"),
    ),
}


class Commands(TyperGroup):
    """The commands, in the order of `_PANELS` whatever the order in which they were added, each with its examples."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for panel, names in _PANELS.items():
            for name in names:
                command = self.commands.get(name)
                if isinstance(command, TyperCommand):
                    command.rich_help_panel = panel
                    command.epilog = examples_of(name)

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names; those that no panel has come last."""
        known = [name for names in _PANELS.values() for name in names if name in self.commands]
        return [*known, *(name for name in super().list_commands(ctx) if name not in known)]


def examples_of(command: str) -> str:
    """The examples of `command` as help shows them: a comment, and below it a line to copy."""
    lines = [f"# {why}\nspectral-edge {how}" for why, how in _EXAMPLES[command]]
    # A blank line between paragraphs: typer joins the lines of one in some versions, and rich reads [ as markup.
    return "\n".join(["Examples:", "", *lines]).replace("[", "\\[")


def arguments_with_help(arguments: Sequence[str]) -> list[str]:
    """`arguments` as they are meant: none ask for help, and `help COMMAND` is `COMMAND --help`."""
    if not arguments:
        return ["--help"]
    return [*arguments[1:], "--help"] if arguments[0] == "help" else list(arguments)


def example_commands() -> list[tuple[str, str]]:
    """Every example: the command's name, and the line as a shell takes it."""
    return [(name, f"spectral-edge {how}") for name, examples in _EXAMPLES.items() for _, how in examples]

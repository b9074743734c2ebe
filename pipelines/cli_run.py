"""What surrounds every command: colours as the environment asks for them, and each error as one line with a next step.

Exit codes, by :data:`EXIT_CODES`; docs/cli.md has them from there.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, Final, cast

import typer

from pipelines.cli_help import arguments_with_help
from pipelines.settings import ENVIRONMENT_PREFIX, AuditSettings
from pipelines.terminal import exit_code, print_error, print_warning
from spectral_edge.errors import SpectralEdgeError, UsageError

EXIT_CODES: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "all is well; of `doctor`: no problem, warnings or not",
        1: "a run failed, was audited in part or refused; something could not be reached or written; `doctor` found "
        "a problem; or a question was answered with no",
        2: "the request was wrong: an unknown command, option, source, setting, table or run, or SQL that cannot be; "
        "nothing was changed",
        130: "Ctrl-C; an audit leaves nothing half done",
        143: "SIGTERM; likewise",
    }
)
"""What a command ends with, and what that means."""

_OF_OTHERS: Final = frozenset({"FOLDER", "TIED_TO_PARENT"})
"""Variables with our prefix that are no settings: of `prefect deploy --all`, and between `serve` and its audits."""

# typer's class of wrong arguments, which has moved between its versions: what typer.BadParameter is derived from.
_WrongArguments: Final = cast("type[typer.BadParameter]", typer.BadParameter.__bases__[0])


def run(app: typer.Typer) -> int:
    """Run the command that `sys.argv` names, and return the exit code."""
    use_colours_of(os.environ)
    for warning in unknown_variables(os.environ):
        print_warning(warning)
    try:
        code: Any = app(arguments_with_help(sys.argv[1:]), prog_name="spectral-edge", standalone_mode=False)
    except SpectralEdgeError as error:
        error.next_step = error.next_step or _further(error)
        print_error(str(error))
        return exit_code(error)
    except _WrongArguments as error:
        print_error(str(_told(error)))
        return 2
    except typer.Abort:
        print_error("stopped: nothing was answered.")
        return 1
    return code if isinstance(code, int) else 0


def _further(error: SpectralEdgeError) -> str:
    """The next step of an error that says all there is to say in itself."""
    if isinstance(error, UsageError):
        command = next((word for word in sys.argv[1:2] if not word.startswith("-")), "")
        return f"{' '.join(('spectral-edge', command)).strip()} --help"
    return f"docs/troubleshooting.md says what to do about a {type(error).__name__}."


def _told(error: typer.BadParameter) -> UsageError:
    """Typer's error in the form of ours."""
    said = " ".join(error.format_message().split())
    where = error.ctx.command_path if error.ctx else "spectral-edge"
    close = getattr(error, "possibilities", None)
    if close:
        said = f"{error.message}. Did you mean {' or '.join(close)}?"
    stop = "" if said.endswith(("?", ".", ")")) else "."
    return UsageError(f"{said[:1].lower()}{said[1:]}{stop}", next_step=f"{where} --help")


def use_colours_of(environment: MutableMapping[str, str]) -> None:
    """Say in the two words that rich obeys, NO_COLOR and FORCE_COLOR, what others say with CLICOLOR.

    NO_COLOR comes first, then FORCE_COLOR, then CLICOLOR_FORCE and CLICOLOR (https://bixense.com/clicolors). Where none
    says anything, colours are on for terminals.
    """
    forced = environment.get("FORCE_COLOR")
    if forced in {"0", "false"}:  # rich would take it for a yes
        del environment["FORCE_COLOR"]
        environment.setdefault("NO_COLOR", "1")
    if environment.get("NO_COLOR"):
        environment.pop("FORCE_COLOR", None)
    elif environment.get("CLICOLOR_FORCE", "0") != "0":
        environment.setdefault("FORCE_COLOR", "1")
    elif environment.get("CLICOLOR") == "0" and not forced:
        environment["NO_COLOR"] = "1"


def unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """One sentence for each variable that looks like a setting and is none: a slip would have no effect, silently."""
    known = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in (*AuditSettings.model_fields, *_OF_OTHERS)}
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "docs/cli.md lists the settings."
            yield f"the variable {name} is no setting, and is ignored. Next: {hint}"

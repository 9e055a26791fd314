"""The command ``runtime-pruning``: what it is made of, and how it ends.

A command returns nothing, or 1 if what it checked failed. It refuses bad input with a `UserError`:
one sentence on standard error, exit code 2.
"""

import sys
from collections.abc import Sequence

import typer
from pydantic import ValidationError
from typer.exceptions import TyperException

from runtime_pruning.cli import backbone, choose, export, look, serve, ship, sweep
from runtime_pruning.errors import ContractError, RuntimePruningError, UserError

EXIT_FAILED, EXIT_BAD_INPUT = 1, 2
# Each is a Typer app; `--help` lists their commands in this order, under their panels.
GROUPS = (sweep, look, choose, export, serve, ship, backbone)


def build_app() -> typer.Typer:
    """Return the command with all its subcommands."""
    app = typer.Typer(
        name="runtime-pruning",
        help="Map the accuracy-speed frontier of runtime pruning, pick a point, and ship it.",
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )
    for group in GROUPS:
        app.add_typer(group.app)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit code.

    It is 0, 1 if a check or a trial failed, 2 for bad input, 130 if it was interrupted.

    Args:
        argv: arguments; None takes the process's.
    """
    return run(build_app(), "runtime-pruning", sys.argv[1:] if argv is None else argv)


def run(app: typer.Typer, name: str, argv: Sequence[str]) -> int:
    """Run a Typer app on arguments; return the exit code."""
    try:
        # Without a word, a person wants to know what there is.
        code = typer.main.get_command(app).main(
            args=list(argv) or ["--help"], prog_name=name, standalone_mode=False
        )
    except TyperException as error:
        return _say(_misuse(error, name), EXIT_BAD_INPUT)
    except (UserError, ContractError) as error:
        return _say(error, EXIT_BAD_INPUT)
    except RuntimePruningError as error:
        return _say(error, EXIT_FAILED)
    return int(code or 0)


def _misuse(error: TyperException, name: str) -> str:
    """Return what is wrong with the arguments, the value that is refused, and where to look."""
    told = error.format_message().replace("Value error, ", "").rstrip(".")
    if isinstance(cause := error.__cause__, ValidationError):
        value = cause.errors()[0]["input"]
        told += "" if repr(value) in told else f", but got {value!r}"
    context = getattr(error, "ctx", None)
    command = name if context is None else context.command_path
    return f"{told}{'' if told.endswith('?') else '.'} See `{command} --help`."


def _say(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code

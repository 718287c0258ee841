"""Assemble the program: its commands, exit statuses and error lines.

A mistake of the user is one line on stderr with the field or file, what was expected and what was found, and
exit status 2. If a shard of a sweep fails permanently, the status is 1. An internal error is also one line,
with exit status 70.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import traceback
from typing import Annotated, Any

import pydantic
import typer

from topdown_ray.addresses import hidden
from topdown_ray.cli import assets, bench, hardware, networks, results, supervisor, sweeps
from topdown_ray.errors import StartError, StoreError, UserError, one_line
from topdown_ray.files import brief_path, wrong_value
from topdown_ray.terminal import end_on_signals, say

app = typer.Typer(
    name="topdown-ray",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Debug = Annotated[
    bool,
    typer.Option("--debug", help="Print the traceback of an internal error. Write it before COMMAND."),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from topdown_ray import __version__

        print(f"topdown-ray {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
]


@app.callback()
def program(debug: Debug = False, version: Version = False) -> None:
    """Find the most accurate Once-for-All (OFA) subnet for each latency target on your device. Searches run
    in parallel on Ray.
    """
    _debug.set(debug)


for topic in (sweeps, results, hardware, networks, bench, assets):
    topic.register(app)

_debug = contextvars.ContextVar("debug", default=False)

# typer has its own copy of click or uses the installed one; the base class of its errors is right in both
# cases
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """The console script."""
    end_on_signals()
    status = _status()
    try:
        sys.stdout.flush()  # a full disk shows here
    except OSError as error:
        _drop_output()  # else Python tries again as it ends, and complains
        if status == 0:
            status = (
                1
                if isinstance(error, BrokenPipeError)
                else _fail(f"stdout: expected space to write, found {error.strerror}")
            )
    supervisor.farewell(status)
    sys.exit(status)


def _status() -> int:
    """Run the command that the arguments name. Returns its exit status, after at most one line of error."""
    try:
        return int(app(standalone_mode=False) or 0)
    except _UsageError as error:
        if len(sys.argv) == 1:
            sys.argv.append("--help")
            return _status()
        return _fail(_usage(error))
    except UserError as error:
        return _fail(str(error))
    except StartError as error:
        return _fail(str(error), 1)
    except StoreError as error:
        return _fail(
            f"{error}; finished shards are kept; fix this and run the same command again to continue", 1
        )
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the program that read the output has ended
        return 1
    except OSError as error:  # of a disk, a name or a permission: not a fault of this program
        if _debug.get():
            traceback.print_exception(error)
        where = "output" if error.filename is None else brief_path(str(error.filename))
        return _fail(
            f"{where}: expected permission and space to read and write, found "
            f"{error.strerror or one_line(error)}"
        )
    except Exception as error:  # a fault of this program
        return _internal(error)


def _usage(error: Any) -> str:
    """Return typer's message about the arguments. If pydantic found a wrong value, typer does not repeat what
    was typed.
    """
    cause = error.__cause__
    if not isinstance(cause, pydantic.ValidationError):
        return str(error.format_message())
    mistake = cause.errors(include_url=False)[0]
    return f"{error.param.opts[-1]}: {wrong_value(mistake['msg'], mistake['input'])}"


def _drop_output() -> None:
    """Discard output that can no longer be written to stdout."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _internal(error: Exception) -> int:
    """Status 70 (EX_SOFTWARE of sysexits.h): one line, and the traceback where --debug asks for it."""
    if _debug.get():
        traceback.print_exception(error)
    advice = "please report it with the command" + (
        "" if _debug.get() else "; topdown-ray --debug COMMAND prints the traceback"
    )
    return _fail(f"internal error: {type(error).__name__}: {one_line(error)}; {advice}", 70)


def _fail(message: str, status: int = 2) -> int:
    say(f"error: {one_line(hidden(message), 2000)}")
    return status

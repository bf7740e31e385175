"""The commands of `darkroom`.

Each command imports what it needs, so that `darkroom --help` and `darkroom search` start at once.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from jobs.cli import (
    explain_commands,
    feedback_commands,
    gallery_commands,
    image_commands,
    layout_commands,
    machine_commands,
    manifest_commands,
    model_commands,
    profile_commands,
    run_commands,
)
from jobs.running.interrupts import interrupts_stay
from jobs.running.program import VERSION_LINE
from jobs.running.streams import lasting_streams
from jobs.terminal import EXIT_INPUT, EXIT_STOPPED, complain
from pipeline.errors import ConfigError, DarkroomError, RunStopped, Unreachable

app = typer.Typer(
    name="darkroom",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for part in (
    image_commands,
    explain_commands,
    feedback_commands,
    gallery_commands,
    layout_commands,
    run_commands,
    machine_commands,
    manifest_commands,
    model_commands,
    profile_commands,
):
    app.add_typer(part.app)


@dataclass(slots=True)
class _Options:
    verbose: bool = False


def _version(asked: bool) -> None:
    if asked:
        typer.echo(VERSION_LINE)
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Make images in batches; find, explain, reproduce and verify them."""
    context.obj.verbose = verbose


def run_command() -> int:
    """Run the command line; returns the exit code. Errors meant for users are one line on standard error."""
    options = _Options()
    try:
        with lasting_streams():
            return _run(options)
    except RunStopped as error:  # nothing can be printed
        complain(f"darkroom: {error}")
        return EXIT_STOPPED


def _run(options: _Options) -> int:
    try:
        with interrupts_stay():
            app(obj=options)
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else EXIT_INPUT
    except RunStopped:
        raise
    except (DarkroomError, OSError) as error:  # a folder that may not be read, and the like
        if options.verbose:
            traceback.print_exc()
        else:
            for line in _lines(error):
                complain(f"darkroom: {line}")
        return EXIT_STOPPED if isinstance(error, Unreachable) else EXIT_INPUT
    return 0


def _lines(error: DarkroomError | OSError) -> Sequence[str]:
    if isinstance(error, ConfigError):
        return error.faults
    if isinstance(error, OSError):
        return [f"{error.filename2 or error.filename or 'the system'}: {error.strerror or error}"]
    return [str(error)]

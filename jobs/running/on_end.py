"""The program that a user wants started when a run has ended: `on_end`, for a message on a phone or the next step."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.terminal import complain
from pipeline.storage.platform import kill_group
from pipeline.system.units import duration_text

if TYPE_CHECKING:
    from subprocess import Popen

TIMEOUT_S = 60.0
"""After which the program is ended."""

_STANDARD_ERROR = 2

_log = logging.getLogger("darkroom.run")


def start_on_end(program: Sequence[str], run_id: str, summary: Path, *, made: int, failed: int, exit_code: int) -> None:
    """Start a program with its arguments, without a shell, and wait for it. A fault of it is a warning, nothing else.

    It learns of the run from its environment. What it prints goes to standard error, so that standard output is the
    run's own.
    """
    import subprocess

    name = Path(program[0]).name  # arguments may hold what nobody else should know
    environment = {
        **os.environ,
        "DARKROOM_RUN_ID": run_id,
        "DARKROOM_SUMMARY": str(summary.resolve()) if summary.is_file() else "",
        "DARKROOM_MADE": str(made),
        "DARKROOM_FAILED": str(failed),
        "DARKROOM_EXIT_CODE": str(exit_code),
    }
    try:
        process = subprocess.Popen(
            program, env=environment, stdin=subprocess.DEVNULL, stdout=_STANDARD_ERROR, start_new_session=True
        )
    except (OSError, ValueError) as error:
        _warn(f"on_end: {name} cannot be started ({getattr(error, 'strerror', None) or error})")
        return
    try:
        code = process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        _kill(process)
        _warn(f"on_end: {name} was ended, since it took more than {duration_text(TIMEOUT_S)}")
    except KeyboardInterrupt:
        _kill(process)
        _warn(f"on_end: {name} was ended by a signal to the run")
    else:
        if code:
            _warn(f"on_end: {name} ended with {f'code {code}' if code > 0 else signal.Signals(-code).name}")
        else:
            _log.info("on_end: %s ended well", name)


def _kill(process: Popen[bytes]) -> None:
    """End it, and what it has started."""
    kill_group(process.pid)
    process.wait()


def _warn(text: str) -> None:
    _log.warning("%s", text)
    complain(text)

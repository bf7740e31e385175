"""The program around Hydra's composing: prepares workers in the meantime, and ends the process quickly."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from jobs.running.streams import lasting_streams
from pipeline.errors import DarkroomError
from pipeline.version import VERSION

if TYPE_CHECKING:
    from jobs.engines.processes import WorkerProcesses

VERSION_LINE = f"darkroom {VERSION}"

Compose = Callable[[], tuple[list[dict[str, Any]], list[Path]]]


def program(arguments: list[str], compose: Compose) -> int:
    """Run the command line and return the exit code; `compose` reads `sys.argv` and the option files with Hydra."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    # Until a run takes both signals over, they end it alike.
    before = signal.signal(signal.SIGTERM, _interrupt) if in_main_thread else None
    gc.disable()  # importing makes no garbage, and looking for it would take a third of the time
    workers = _prepared() if makes_images(arguments) else None
    try:
        with lasting_streams():
            return _compose_and_run(arguments, compose, workers)
    finally:
        if workers is not None:
            workers.close()
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)
        gc.enable()


def _prepared() -> WorkerProcesses:
    from jobs.engines.processes import WorkerProcesses  # not for --help and the like

    workers = WorkerProcesses()
    workers.prepare()
    return workers


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def makes_images(arguments: Sequence[str]) -> bool:
    """Whether the command line will probably make pictures, and not only print something."""
    flags = (word.partition("=")[0] for word in arguments if word.startswith("-"))
    dry = any(word.lstrip("+").startswith("dry_run=") and not word.endswith("=false") for word in arguments)
    return not dry and all(flag in ("-m", "--multirun", "-cd", "--config-dir") for flag in flags)


def _compose_and_run(arguments: list[str], compose: Compose, workers: WorkerProcesses | None) -> int:
    from jobs.config.composition import known_overrides, place_of_lines, user_folders
    from jobs.config.option_folders import option_folders
    from jobs.config.trust import check_trust

    if "--version" in arguments:
        print(VERSION_LINE)
        return 0
    try:
        sys.argv[1:] = known_overrides(arguments)
        ours = option_folders()
        check_trust([*ours, *user_folders(sys.argv[1:])], ours[0] / "config.yaml", ours)
        configs, folders = compose()
    except DarkroomError as error:
        from jobs.terminal import complain

        complain(str(error))
        return 2
    if not configs:
        return 0
    from jobs.running.main import main  # not for --help and completion, which should be quick

    gc.freeze()
    gc.enable()
    return main(configs, folders, workers, place_of_lines(sys.argv[1:]), arguments)


def leave(code: int) -> NoReturn:
    """End the process without the interpreter's shutdown, which takes 0.2 s: all is written, and no worker is left.

    What DuckDB prints while it is taken down would tell nobody anything.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its reader has gone, or it was closed from the start
            stream.flush()
    os._exit(code)

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
from typing import TYPE_CHECKING, Any, NoReturn

from jobs.running.interrupts import interrupt, interrupts_stay
from jobs.running.streams import lasting_streams
from pipeline.errors import ConfigError, DarkroomError, RunStopped
from pipeline.version import VERSION

if TYPE_CHECKING:
    from jobs.engines.processes import WorkerProcesses

VERSION_LINE = f"darkroom {VERSION}"

Compose = Callable[[list[Path], list[Path]], tuple[list[dict[str, Any]], list[str | None]]]
"""Of the folders of options, and of those among them that Hydra does not search by itself."""

Then = Callable[[list[dict[str, Any]], list[Path], list[str | None]], int]
"""What is done with the configurations, the folders that they came from and the places of their prompts."""


def program(arguments: list[str], compose: Compose, then: Then | None = None) -> int:
    """Run the command line and return the exit code; `compose` reads `sys.argv` and the option files with Hydra.

    `then` is done with what was composed; None makes the images.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    # Until a run takes both signals over, they end it alike.
    before = signal.signal(signal.SIGTERM, interrupt) if in_main_thread else None
    gc.disable()  # importing makes no garbage, and looking for it would take a third of the time
    workers = _prepared() if then is None and makes_images(arguments) else None
    try:
        with lasting_streams():
            return _compose_and_run(arguments, compose, workers, then)
    except RunStopped as error:  # what was still to be printed
        from jobs.terminal import complain

        complain(str(error))
        return 4
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


def makes_images(arguments: Sequence[str]) -> bool:
    """Whether the command line will probably make pictures, and not only print something."""
    flags = (word.partition("=")[0] for word in arguments if word.startswith("-"))
    dry = any(word.lstrip("+").startswith("dry_run=") and not word.endswith("=false") for word in arguments)
    return not dry and all(flag in ("-m", "--multirun", "-cd", "--config-dir") for flag in flags)


def _compose_and_run(arguments: list[str], compose: Compose, workers: WorkerProcesses | None, then: Then | None) -> int:
    if "--version" in arguments:
        print(VERSION_LINE)
        return 0
    try:
        configs, places, folders = composed(arguments, compose)
    except DarkroomError as error:
        from jobs.terminal import complain

        complain(str(error))
        return 2
    if not configs:
        return 0
    if then is not None:
        return then(configs, folders, places)
    from jobs.running.main import main  # not for --help and completion, which should be quick

    gc.freeze()
    gc.enable()
    return main(configs, folders, workers, places, arguments)


def composed(arguments: list[str], compose: Compose) -> tuple[list[dict[str, Any]], list[str | None], list[Path]]:
    """What Hydra makes of a command line: the configurations, what messages call the place of their prompts, and the
    folders of options. None for `--help` and the like, which print something.

    Raises `ConfigError` for what cannot be composed, and `UntrustedConfig` before Hydra reads what should not be read.
    """
    from jobs.config.composition import asks_for_completion, explain, known_overrides, user_folders
    from jobs.config.option_folders import option_folders
    from jobs.config.profiles import known_choices, profiles_below
    from jobs.config.trust import check_trust

    sys.argv[1:] = known_overrides(arguments)
    ours, given = option_folders(), user_folders(sys.argv[1:])
    if missing := [folder for folder in given if not folder.is_dir()]:
        raise ConfigError(f"--config-dir {missing[0]}: no such folder")
    folders = [*ours, *(folder.absolute() for folder in given)]
    check_trust(folders, ours[0] / "config.yaml", ours)
    if asks_for_completion(arguments):
        return *compose(folders, ours[1:]), folders
    sys.argv[1:] = known_choices(sys.argv[1:], folders)
    with profiles_below(sys.argv[1:], folders) as first:
        try:
            with interrupts_stay():
                return *compose([*first, *folders], [*first, *ours[1:]]), folders
        except DarkroomError:
            raise
        except Exception as error:  # of any kind, where Hydra meets a value that it does not expect
            raise ConfigError(explain(str(error))) from error


def leave(code: int) -> NoReturn:
    """End the process without the interpreter's shutdown, which takes 0.2 s: all is written, and no worker is left.

    What DuckDB prints while it is taken down would tell nobody anything.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its reader has gone, or it was closed from the start
            stream.flush()
    os._exit(code)

"""`darkroom run`: run.py, which is beside `jobs` both in a checkout and in an installed wheel."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.archive.more import RunLike
    from jobs.running.program import Then

RUN_PY = Path(__file__).resolve().parents[2] / "run.py"

_MODULE = "darkroom_run"
"""Loaded from its path and under a name of its own, since a folder of the user's may well have a run.py."""


def run_py(arguments: list[str], then: Then | None = None) -> int:
    """Run the whole program; returns the exit code. `then` is done instead of making images."""
    from jobs.config.composition import asks_for_completion

    if asks_for_completion(arguments):
        from jobs.terminal import complain

        complain("darkroom: `darkroom --install-completion` lets a shell complete `darkroom run`, too")
        return 2
    return int(_module().run(arguments, then))


def composed(arguments: list[str]) -> dict[str, Any]:
    """The configuration that these arguments of a run stand for, as plain data, no key checked yet.

    Raises `ConfigError` for what cannot be composed.
    """
    from jobs.running.program import composed

    configs, *_ = composed(arguments, _module().collect_configs)
    return configs[0]


def run_all(runs: Sequence[RunLike]) -> int:
    """Make what these runs ask for, all in one plan; returns the exit code.

    One that a command line can say is run as if it had been given, so that it is kept and can be given again.
    """
    if len(runs) == 1 and (command := runs[0].command):
        return run_py(command)

    def of(run: RunLike) -> list[str]:
        return [*run.arguments, "prompts.lines=[more]"]

    def then(configs: list[dict[str, Any]], folders: list[Path], _places: list[str | None]) -> int:
        from jobs.running.main import main

        every = [configs[0], *(composed(of(run)) for run in runs[1:])]
        for config, run in zip(every, runs, strict=True):
            config["prompts"]["lines"] = run.lines
        return main(every, folders, places_of_lines=[None] * len(runs))

    return run_py(of(runs[0]), then)


def _module() -> Any:
    spec = importlib.util.spec_from_file_location(_MODULE, RUN_PY)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    spec.loader.exec_module(module)
    return module


def completions(words: list[str], incomplete: str) -> list[str]:
    """Possible completions of the word `incomplete` after `words`, from Hydra; empty if it has none.

    bash takes `memory=au` for three words, and wants what may stand in place of the last.
    """
    import subprocess

    prefix = "".join(words[-2:]) if words[-1:] == ["="] else ""
    line = " ".join(["darkroom", *words, incomplete]).replace(" = ", "=")
    found = subprocess.run(
        [sys.executable, str(RUN_PY), "-sc", "query=bash"],
        env={**os.environ, "COMP_LINE": line},
        capture_output=True,
        text=True,
        check=False,
    )
    return [word.removeprefix(prefix) for word in found.stdout.split()]

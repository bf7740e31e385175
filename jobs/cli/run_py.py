"""`darkroom run`: run.py, which is beside `jobs` both in a checkout and in an installed wheel."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

RUN_PY = Path(__file__).resolve().parents[2] / "run.py"

_MODULE = "darkroom_run"
"""Loaded from its path and under a name of its own, since a folder of the user's may well have a run.py."""


def run_py(arguments: list[str]) -> int:
    """Run the whole program; returns the exit code."""
    from jobs.config.composition import asks_for_completion

    if asks_for_completion(arguments):
        from jobs.terminal import complain

        complain("darkroom: `darkroom --install-completion` lets a shell complete `darkroom run`, too")
        return 2
    spec = importlib.util.spec_from_file_location(_MODULE, RUN_PY)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    spec.loader.exec_module(module)
    return int(module.run(arguments))


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

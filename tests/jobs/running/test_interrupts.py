"""A signal that comes at an awkward place ends the program all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.running.interrupts import interrupts_stay
from pipeline.errors import ConfigError, RunStopped

NAMED = """
class Field:
    def __set_name__(self, owner, name):
        interrupt_oneself()

class Owner:
    field = Field()
"""

FINALIZED = """
class Object:
    def __del__(self):
        interrupt_oneself()

Object()
"""

PROGRAM = """
import os, signal, time
from jobs.running.interrupts import answer_ctrl_c, interrupt

def interrupt_oneself():
    os.kill(os.getpid(), signal.{number})

answer_ctrl_c()
signal.signal(signal.SIGTERM, interrupt)
try:
    exec({code!r})
    time.sleep(30)
except KeyboardInterrupt:
    print("stopped")
"""

COMPOSES = """
import os, signal, sys
from pathlib import Path
import run

opened = Path.open

def interrupted(path, *arguments, **options):
    if "hydra" in path.parts:
        os.kill(os.getpid(), signal.{number})
    return opened(path, *arguments, **options)

Path.open = interrupted
signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.exit(run.run(["dry_run=true"]))
"""
"""Hydra closes each file in a `finally`, also one that it could not open."""


def ended(program: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process there")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("code", [NAMED, FINALIZED], ids=["a field gets its name", "an object ends"])
def test_a_signal_where_python_turns_or_drops_what_is_raised(number: str, code: str) -> None:
    assert ended(PROGRAM.format(number=number, code=code)) == (0, "stopped\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process there")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_that_leaves_hydra_with_half_a_file_is_no_fault_of_the_input(number: str) -> None:
    assert ended(COMPOSES.format(number=number)) == (4, "", "stopped before anything was made\n")


def test_another_error_in_the_place_of_an_interrupt() -> None:
    """However far from it, and no error that came before or without one."""
    with pytest.raises(KeyboardInterrupt), interrupts_stay():
        try:
            try:
                raise KeyboardInterrupt
            finally:
                del half_done  # type: ignore[name-defined]
        except NameError as error:
            raise ConfigError("half_done: not known") from error
    with pytest.raises(RunStopped, match="while models were fetched"), interrupts_stay():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise RunStopped("stopped while models were fetched") from None
    with pytest.raises(ConfigError, match="a fault"), interrupts_stay():
        raise ConfigError("a fault") from ValueError()

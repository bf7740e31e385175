"""A signal that comes at an awkward place ends the program all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process there")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("code", [NAMED, FINALIZED], ids=["a field gets its name", "an object ends"])
def test_a_signal_where_python_turns_or_drops_what_is_raised(number: str, code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(number=number, code=code)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")

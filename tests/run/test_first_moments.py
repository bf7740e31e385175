"""Ctrl-C while a program still starts: from the first line that is ours on, no traceback."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from forked import REPO

from jobs.cli.entry import STOPPED_BY_CTRL_C

INSTALLED = """import re
import sys
from jobs.cli.entry import script
if __name__ == '__main__':
    sys.exit(script())
"""
"""What installers write for an entry of `[project.scripts]`."""

WITHIN_S = 60


@pytest.fixture(params=["run.py", "darkroom", "-m jobs"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """A program that asks for little and makes nothing, as a user starts it."""
    if request.param == "run.py":
        return [sys.executable, str(REPO / "run.py"), "dry_run=true", f"output.dir={tmp_path / 'out'}"]
    script = tmp_path / "bin" / "darkroom"
    script.parent.mkdir()
    script.write_text(INSTALLED)
    program = [str(script)] if request.param == "darkroom" else ["-m", "jobs"]
    return [sys.executable, *program, "models", "list"]


def started(command: Sequence[str], tmp_path: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(tmp_path / "first"), str(REPO)])
    env = {**os.environ, "PYTHONPATH": path, "DARKROOM_HOME": str(tmp_path / "home")}
    return subprocess.Popen(
        command,
        env=env,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_ctrl_c_in_the_first_import_is_no_traceback(command: list[str], tmp_path: Path) -> None:
    """The import itself sends it."""
    first = tmp_path / "first" / ("tempfile.py" if command[1].endswith("run.py") else "typer.py")
    first.parent.mkdir()
    first.write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n")
    with started(command, tmp_path) as run:
        out, err = run.communicate(timeout=WITHIN_S)
    assert (run.returncode, out, err) == (-signal.SIGINT, "", "")


IN_A_CALLBACK = """import os, signal, time, weakref
class Thing: pass
def gone(_): os.kill(os.getpid(), signal.SIGINT)
thing = Thing()
reference = weakref.ref(thing, gone)
del thing
time.sleep(30)
"""
"""What such a callback raises is lost, and imports have many of them."""


def test_ctrl_c_in_a_callback_of_an_import_stops_it(command: list[str], tmp_path: Path) -> None:
    is_run = command[1].endswith("run.py")
    first = tmp_path / "first" / ("hydra.py" if is_run else "sqlite3.py")
    first.parent.mkdir()
    first.write_text(IN_A_CALLBACK)
    with started(command, tmp_path) as run:
        out, err = run.communicate(timeout=WITHIN_S)
    expected = (4, "", "stopped before anything was made\n") if is_run else (STOPPED_BY_CTRL_C, "", "")
    assert (run.returncode, out, err) == expected


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux, which tells what a process catches")
def test_ctrl_c_at_any_moment_from_our_first_line_on(command: list[str], tmp_path: Path) -> None:
    """Python answers SIGINT itself from early on; where it no longer does, our first line has run."""
    chance = random.Random(20)
    codes = list[int]()
    for most_s in (0, 0, 0.01, 0.01, 0.03, 0.1, 0.1, 0.3, 0.3, 1):
        with started(command, tmp_path) as run:
            wait_until(run, catches=True)
            wait_until(run, catches=False)
            time.sleep(chance.uniform(0, most_s))
            run.send_signal(signal.SIGINT)
            _, err = run.communicate(timeout=WITHIN_S)
        assert run.returncode in (-signal.SIGINT, STOPPED_BY_CTRL_C, 4, 0)
        assert "Traceback" not in err and "KeyboardInterrupt" not in err, (most_s, err)
        codes.append(run.returncode)
    assert -signal.SIGINT in codes, "one at least came before it was answered"


def wait_until(run: subprocess.Popen[str], *, catches: bool) -> None:
    status = Path(f"/proc/{run.pid}/status")
    ends = time.monotonic() + WITHIN_S
    while run.poll() is None and time.monotonic() < ends:
        found = re.search(r"SigCgt:\s*([0-9a-f]+)", status.read_text())
        if found and bool(int(found[1], 16) >> (signal.SIGINT - 1) & 1) == catches:
            return

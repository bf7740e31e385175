"""The program at the end of a run: what it learns, and that no fault of it is the run's."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from jobs.running import on_end as module
from jobs.running.on_end import start_on_end


@pytest.fixture
def summary(tmp_path: Path) -> Path:
    path = tmp_path / "summary.json"
    path.write_text("{}")
    return path


def start(program: list[str], summary: Path) -> None:
    start_on_end(program, "20260101T000000Z-01234567", summary, made=7, failed=1, exit_code=3)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_it_learns_of_the_run_and_gets_its_arguments_as_they_are(
    summary: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(summary.parent)
    names = "RUN_ID", "SUMMARY", "MADE", "FAILED", "EXIT_CODE"
    code = (
        f"import os, sys; print(sys.argv[1:], *(os.environ['DARKROOM_' + n] for n in {names}), sys.stdin.read() == '')"
    )
    start([*python(code), "$HOME; *", ""], Path("summary.json"))
    said = capfd.readouterr()
    assert said.err == f"['$HOME; *', ''] 20260101T000000Z-01234567 {summary} 7 1 3 True\n" and said.out == ""


def test_without_a_summary_it_is_told_of_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    start(python("import os; print(repr(os.environ['DARKROOM_SUMMARY']))"), tmp_path / "summary.json")
    assert capfd.readouterr().err == "''\n"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (python("raise SystemExit(3)"), f"on_end: {Path(sys.executable).name} ended with code 3"),
        (python("import os; os.kill(os.getpid(), 9)"), f"on_end: {Path(sys.executable).name} ended with SIGKILL"),
        (["/nowhere/notify", "secret"], "on_end: notify cannot be started (No such file or directory)"),
        (["/"], "on_end:  cannot be started (Permission denied)"),
        (["notify\0", "x"], "cannot be started (embedded null byte)"),
    ],
)
def test_its_faults_are_warnings(
    summary: Path, program: list[str], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    start(program, summary)
    said = capfd.readouterr().err
    assert expected in said and "secret" not in said and len(said.splitlines()) == 1


def test_one_that_hangs_is_ended_with_what_it_has_started(
    summary: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 2.0)
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '100']).pid, flush=True); time.sleep(100)"
    began = time.monotonic()
    start(python(code), summary)
    assert time.monotonic() - began < 30
    pid, warning = capfd.readouterr().err.splitlines()
    assert warning.endswith("was ended, since it took more than 2 s")
    for _ in range(100):  # its parent is gone, so init reaps it
        if not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    else:
        pytest.fail("what it had started goes on")

"""Programs in processes of their own that need not import anything: forked from a server which has done that once.

`run.py`, `darkroom` and the scripts in `examples/` start as a user starts them in every other respect: own session,
working folder, environment, standard streams, arguments. A run's workers come from a server of its own, as they do
without this; the commands that a script runs come from one, too.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
REPO = TESTS.parent
TIMEOUT_S = 240

PROGRAMS = {"run.py": ("run", "run"), "darkroom": ("jobs.cli.entry", "main")}
"""Module and function of each program. `run` takes the arguments, `main` reads them from `sys.argv`."""


@dataclass(frozen=True)
class Ended:
    """A program that has ended. A negative `code` is the signal that ended it."""

    code: int
    out: str
    err: str


class ForkedProcess:
    """What a test needs of `subprocess.Popen`, for a program that was forked.

    `first` is called in the process before anything else, and is pickled on its way there.
    """

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        out: Path,
        err: Path,
        stdin: Path = Path(os.devnull),
        first: Callable[[], object] | None = None,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        ensure_server()
        self._process = context.Process(
            target=_become,
            args=(program, list(arguments), str(cwd), dict(env), (str(stdin), str(out), str(err)), first),
        )
        out.touch()
        err.touch()
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        with contextlib.suppress(ProcessLookupError):  # ended already
            while os.getpgid(self.pid) != self.pid:  # it is not yet in a session of its own
                time.sleep(0.001)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def ensure_server() -> None:
    """One server a test process, from which runs within this process fork their workers too."""
    forkserver.set_forkserver_preload(["jobs.engines.preloaded", "forked_preload"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(REPO), str(TESTS))))
        forkserver.ensure_running()


def program(
    name: str,
    *arguments: str | Path,
    cwd: Path,
    folder: Path,
    env: Mapping[str, str] | None = None,
    first: Callable[[], object] | None = None,
) -> Ended:
    """Run `run.py`, `darkroom` or `examples/NAME.py` to its end, in `cwd`.

    What it prints passes through files in `folder`.
    """
    out, err = folder / "forked-out.txt", folder / "forked-err.txt"
    for path in (out, err):
        path.unlink(missing_ok=True)
    process = ForkedProcess(
        name, [str(a) for a in arguments], cwd=cwd, env=env or os.environ, out=out, err=err, first=first
    )
    code = process.wait(TIMEOUT_S)
    return Ended(code, out.read_text(), err.read_text())


def _become(
    name: str,
    arguments: list[str],
    cwd: str,
    env: dict[str, str],
    streams: tuple[str, str, str],
    first: Callable[[], object] | None,
) -> None:
    """In the forked process: be the program."""
    # The server may have been started with these blocked, for the workers that it forks (`processes.py`).
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    os.setsid()
    if first:
        first()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in enumerate(streams):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=-1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    if "OUT_OF_MEMORY_ABOVE" in env:
        _limit_rows(int(env["OUT_OF_MEMORY_ABOVE"]))
    _serve_workers()
    sys.argv[:] = [str(REPO / name), *arguments]
    code = 1
    try:
        code = _main(name, arguments, streams)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _main(name: str, arguments: list[str], streams: tuple[str, str, str]) -> int:
    if name.startswith("examples/"):
        subprocess.run = functools.partial(_run, subprocess.run, streams)
        runpy.run_path(str(REPO / name), run_name="__main__")
        return 0
    module, function = PROGRAMS[name]
    entry = getattr(importlib.import_module(module), function)
    code: int = entry(arguments) if name == "run.py" else entry()
    return code


def _run(
    plainly: Callable[..., Any], streams: tuple[str, str, str], command: list[str], **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """`subprocess.run` of a script: `python -m jobs` on the script's own streams is forked."""
    if command[:3] != [sys.executable, "-m", "jobs"] or options != {"check": True}:
        return plainly(command, **options)
    stdin, out, err = map(Path, streams)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "__main__", ModuleType("__main__"))  # else the new process would run the script
        process = ForkedProcess("darkroom", command[3:], cwd=Path.cwd(), env=os.environ, out=out, err=err, stdin=stdin)
    if code := process.wait():
        raise subprocess.CalledProcessError(code, command)
    return subprocess.CompletedProcess(command, 0)


def _limit_rows(rows: int) -> None:
    """In this process and its workers: UNets find no memory for more rows than these; guidance takes two a picture."""
    import torch
    from diffusers import UNet2DConditionModel

    forward = UNet2DConditionModel.forward

    def limited(self: UNet2DConditionModel, sample: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        if sample.shape[0] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, sample, *arguments, **options)

    UNet2DConditionModel.forward = limited  # type: ignore[method-assign]


def _serve_workers() -> None:
    """What `multiprocessing.forkserver.ensure_running` does, but the server is a fork that has everything already."""
    listener = socket.socket(socket.AF_UNIX)
    address = connection.arbitrary_address("AF_UNIX")
    listener.bind(address)
    listener.listen()
    alive, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(theirs)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            forkserver.main(listener.detach(), alive, [])
        finally:
            os._exit(0)
    os.close(alive)
    listener.close()
    server = forkserver._forkserver  # type: ignore[attr-defined]
    server._forkserver_address, server._forkserver_alive_fd, server._forkserver_pid = address, theirs, pid

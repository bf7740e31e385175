"""Starts worker processes: from a process that has imported the libraries in advance, never as a fork of the parent.

Importing torch and diffusers takes longer than a picture of the shipped model, and as long as reading the
configuration and planning; so it goes on meanwhile, in another process. Where there is no GPU, that process is a server
which forks a worker from itself in hundredths of a second, the first one and each that follows. A process that has
touched CUDA must not be forked, and one with Apple's frameworks neither: there the first worker itself is started early
and waits, and each further one is a new process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing import context, forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jobs.engines.messages import Connection  # its imports would delay the first worker

if sys.platform == "win32":  # from Python's documentation, and never run
    Context = context.SpawnContext
    STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGBREAK)  # the last by Ctrl-Break, or CTRL_BREAK_EVENT
else:
    Context = context.ForkServerContext | context.SpawnContext
    STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

PRELOADED = "jobs.engines.preloaded"

WORKER_NAME = "darkroom-worker"
"""What `ps` and `top` call a worker; Linux takes 15 bytes."""

StartMethod = Literal["forkserver", "spawn"]


def start_method() -> StartMethod:
    """How workers are started on this machine: by a fork server, or as new processes."""
    from pipeline.system.device import find_device

    return "forkserver" if sys.platform == "linux" and find_device().kind == "cpu" else "spawn"


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A worker's process, and the parent's end of its connection."""

    process: BaseProcess
    connection: Connection[Any, Any]


class WorkerProcesses:
    """Starts workers; `prepare` imports libraries in advance where workers will probably be needed."""

    def __init__(self, method: StartMethod | None = None) -> None:
        self._method: StartMethod = method or start_method()
        self._context = _context(self._method)
        self._waiting: WorkerProcess | None = None
        self._server: int | None = None
        self._prepared = False

    def prepare(self) -> None:
        """Begin to import the libraries that a worker needs; returns at once."""
        self._prepared = True
        # Both start it if need be, and it unblocks the signals in its own way.
        if sys.platform != "win32":
            resource_tracker.ensure_running()
        if self._method == "forkserver":
            before = _server_pid()
            forkserver.set_forkserver_preload([PRELOADED])
            with _signals_held_back(), _found_by_others():
                forkserver.ensure_running()
            self._server = pid if (pid := _server_pid()) != before else self._server
        elif self._waiting is None:
            self._waiting = self._started()

    def start(self) -> WorkerProcess:
        """Start a worker, which expects its settings. Waits until a server that is still importing can fork one."""
        if not self._prepared:
            self.prepare()
        worker, self._waiting = self._waiting, None
        return worker or self._started()

    def close(self) -> None:
        """End the prepared processes; workers that were started continue."""
        if self._waiting is not None:
            self._waiting.process.kill()
            self._waiting = None
        if sys.platform != "win32" and self._server is not None and self._server == _server_pid():
            # Closing its pipe, as Python does to stop it, would end it only when it has imported everything.
            with suppress(ProcessLookupError):
                os.kill(self._server, signal.SIGKILL)
            forkserver._forkserver._stop()  # type: ignore[attr-defined]
        self._server, self._prepared = None, False

    def _started(self) -> WorkerProcess:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_main, args=(theirs, dict(os.environ)), name=WORKER_NAME, daemon=True)
        # A server holds signals back for all that it forks; blocking them here while it imports would make Ctrl-C wait.
        with _signals_held_back() if self._method == "spawn" else nullcontext():
            process.start()
        theirs.close()  # so that the end of the worker is the end of the pipe
        return WorkerProcess(process, ours)


def _main(connection: Connection[Any, Any], environment: Mapping[str, str]) -> None:
    """The worker's process: in the parent's environment as it is now, whatever a server has been started with."""
    # No event: setting one takes a lock, for which a signal that comes in the middle of it would wait in vain.
    stops: list[str] = []
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent passes it on
    signal.signal(signal.SIGTERM, lambda *_: stops.append("SIGTERM"))
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    os.environ.update(environment)
    with suppress(OSError):
        Path("/proc/self/comm").write_text(WORKER_NAME)
    from jobs.engines import preloaded  # noqa: F401  (does nothing where a server has done it)
    from jobs.engines.worker_main import work

    work(connection, stops)


def _server_pid() -> int | None:
    """The one server that Python keeps for this process, which may be another's."""
    return getattr(forkserver._forkserver, "_forkserver_pid", None)


def _context(method: StartMethod) -> Context:
    if sys.platform == "win32" or method == "spawn":
        return multiprocessing.get_context("spawn")
    return multiprocessing.get_context("forkserver")


@contextmanager
def _found_by_others() -> Iterator[None]:
    """Python before 3.14 does not tell the server where the parent finds its modules."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Ctrl-C reaches the whole group; blocked until a worker has its handlers, or Python ends it with a traceback."""
    if sys.platform == "win32":  # has no such mask
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""The engine of one machine: a child process makes the images, so that the parent survives its crash."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future

from jobs.engines.messages import STOP, Connection, Died, Ended, Message, WorkerSettings
from jobs.engines.processes import WorkerProcess, WorkerProcesses
from jobs.job import Bundle


class LocalEngine:
    """The parent's side of the engine. One child at a time; `start` makes a new one after the last has ended."""

    def __init__(self, settings: WorkerSettings, processes: WorkerProcesses) -> None:
        self._settings, self._processes = settings, processes
        self._starting: Future[WorkerProcess] | None = None
        self._unsent: list[object] = []
        self._worker: WorkerProcess | None = None
        self._connection: Connection[object, Message] | None = None

    def start(self) -> None:
        """Start a child; returns at once, even if the child must wait until libraries are imported."""
        self._worker = None
        self._starting = Future()
        self._unsent = [self._settings]
        threading.Thread(target=_fulfil, args=(self._starting, self._processes.start), daemon=True).start()

    @property
    def running(self) -> bool:
        """Whether there is a child that has not said `Ended` or died."""
        return self._connection is not None or self._starting is not None

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._worker.process.pid if self._worker else None

    def submit(self, bundle: Bundle) -> None:
        """Send a bundle to the child. If the child has died, `receive` says so."""
        self._send(bundle)

    def finish(self) -> None:
        """No more bundles: the child finishes those that it has, seals and ends."""
        self._send(None)

    def stop(self) -> None:
        """Ask the child to stop between two denoising steps, seal, and end; one that has not started never will."""
        if self._worker:
            self._send(STOP)
        elif self._starting:
            self._starting.add_done_callback(_end)
            self._starting = Future()
            self._starting.set_exception(EOFError())
        self.finish()

    def receive(self, timeout_s: float) -> Message | None:
        """The next message, or None after `timeout_s`. After `Ended` or `Died` the engine is not running."""
        if self._starting is not None:
            return self._started(timeout_s)
        connection = self._connection
        if connection is None:
            return None
        try:
            if not connection.poll(timeout_s):
                return None
            message = connection.recv()
        except (EOFError, OSError):
            return self._gone(Died(self._reason()))
        return self._gone(message) if isinstance(message, Ended) else message

    def _started(self, timeout_s: float) -> Message | None:
        assert self._starting is not None
        try:
            self._worker = self._starting.result(timeout_s)
        except TimeoutError:
            return None
        except (EOFError, OSError) as error:
            self._starting = None
            return Died(f"it could not be started: {error or type(error).__name__}")
        self._starting, self._connection = None, self._worker.connection
        for message in self._unsent:
            self._send(message)
        return None

    def kill(self) -> None:
        """End the child at once; its jobs in progress lose an attempt."""
        if self._starting is not None:
            self._starting.add_done_callback(_end)
        if self._worker and self._worker.process.is_alive():
            self._worker.process.kill()

    def _send(self, message: object) -> None:
        if self._starting is not None:
            self._unsent.append(message)
        elif self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.send(message)

    def _gone(self, message: Message) -> Message:
        if self._connection:
            self._connection.close()
        self._connection = None
        if self._worker:
            process = self._worker.process
            process.join(timeout=10)
            if process.is_alive():  # sealed, but hanging in some library's exit handler
                process.kill()
                process.join()
        return message

    def _reason(self) -> str:
        assert self._worker is not None
        self._worker.process.join(timeout=10)
        code = self._worker.process.exitcode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"


def _fulfil(promise: Future[WorkerProcess], start: Callable[[], WorkerProcess]) -> None:
    try:
        promise.set_result(start())
    except BaseException as error:
        promise.set_exception(error)


def _end(started: Future[WorkerProcess]) -> None:
    """Of a child that nobody waits for any more."""
    if started.exception() is None:
        started.result().process.kill()

"""The engine of one machine: a child process that generates, and that the parent can afford to lose."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

from jobs.engines.messages import Bundle, Died, Ended, Message, WorkerSettings
from jobs.engines.worker import Worker
from pipeline.errors import RunStopped

_HELD_BACK = {signal.SIGINT, signal.SIGTERM}


class LocalEngine:
    """Parent's side. One child at a time; `start` makes a new one after the last has gone.

    Started by spawning, never by forking: a forked CUDA context is unusable, and the parent has threads.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._context = multiprocessing.get_context("spawn")
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection[object, Message] | None = None

    def start(self) -> None:
        """Start a child; it imports torch only when it gets work."""
        self._connection, theirs = self._context.Pipe()
        self._stop = self._context.Event()
        self._process = self._context.Process(
            target=_child_main, args=(theirs, self._stop, self._settings), name="darkroom-worker", daemon=True
        )
        # Ctrl-C reaches the whole group; held back until the child has its handlers, or Python ends it with a trace.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # so that the end of the child is the end of the pipe

    @property
    def running(self) -> bool:
        """Whether there is a child that has not said `Ended` or died."""
        return self._connection is not None

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._process.pid if self._process else None

    def submit(self, bundle: Bundle) -> None:
        """Hand over a bundle. A child that has died meanwhile is noticed by `receive`."""
        self._send(bundle)

    def finish(self) -> None:
        """No more bundles: the child works off what it has, seals and ends."""
        self._send(None)

    def stop(self) -> None:
        """Ask the child to stop between two denoising steps, seal, and end."""
        self._stop.set()
        self.finish()

    def receive(self, timeout_s: float) -> Message | None:
        """The next message, or None after `timeout_s`. After `Ended` or `Died` the engine is not running."""
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

    def kill(self) -> None:
        """End the child at once; what it had in work costs an attempt."""
        if self._process and self._process.is_alive():
            self._process.kill()

    def _send(self, message: object) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.send(message)

    def _gone(self, message: Message) -> Message:
        if self._connection:
            self._connection.close()
        self._connection = None
        if self._process:
            self._process.join(timeout=10)
            if self._process.is_alive():  # sealed, but hanging in some library's exit handler
                self._process.kill()
                self._process.join()
        return message

    def _reason(self) -> str:
        assert self._process is not None
        self._process.join(timeout=10)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"


def _child_main(connection: Connection[Message, object], stop: Event, settings: WorkerSettings) -> None:
    """The child: receives on a thread, so that it notices at once when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent passes it on
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)
    if settings.verbose:
        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s", stream=sys.stderr)
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("darkroom").setLevel(logging.DEBUG)
    else:
        warnings.simplefilter("ignore")
    worker: Worker | None = None
    inbox: queue.SimpleQueue[Bundle | None] = queue.SimpleQueue()
    orphaned = threading.Event()
    sending = threading.Lock()

    def listen() -> None:
        try:
            while True:
                bundle: Bundle | None = connection.recv()  # type: ignore[assignment]
                inbox.put(bundle)
                if worker is not None and bundle is not None:
                    worker.foresee(bundle)
        except (EOFError, OSError):
            orphaned.set()
            inbox.put(None)

    def send(message: Message) -> None:
        with sending, contextlib.suppress(OSError):  # without a parent the work is still sealed
            connection.send(message)

    def bundles() -> Iterator[Bundle]:
        while (bundle := inbox.get()) is not None:
            yield bundle

    threading.Thread(target=listen, name="listen", daemon=True).start()
    from tqdm import tqdm

    # diffusers' progress bars would take a lock between processes, which is reported as leaked when this one is killed.
    tqdm.set_lock(threading.RLock())

    try:
        worker = Worker(settings, send, lambda: stop.is_set() or orphaned.is_set())
    except RunStopped as error:  # full disk, or a folder that another process made unwritable
        send(Ended(stop_kind=error.kind, stop_message=str(error)))
    else:
        worker.run(bundles())
    # Everything is sealed and said. Waiting threads and the exit handlers of libraries could only hang or abort now: a
    # thread that wakes while the interpreter is taken down is unwound through C++ that does not allow it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)

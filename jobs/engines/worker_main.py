"""The main function of a worker's process: receives settings, then bundles, on a thread."""

from __future__ import annotations

import contextlib
import importlib.abc
import logging
import os
import queue
import sys
import threading
import warnings
from collections.abc import Iterator

from tqdm import tqdm

from jobs.engines.log_forwarding import forward
from jobs.engines.messages import Connection, Ended, Message, WorkerSettings
from jobs.engines.worker import Worker
from jobs.job import Bundle
from pipeline.errors import RunStopped
from pipeline.system.process_memory import keep_freed


def work(connection: Connection[Message, object], stops: list[str]) -> None:
    """Serve the parent until it ends the work, something is in `stops`, or the parent is gone; then end the process."""
    try:
        settings = connection.recv()
    except (EOFError, OSError):  # there was nothing to do
        os._exit(0)
    assert isinstance(settings, WorkerSettings)
    if settings.verbose:
        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s", stream=sys.stderr)
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("darkroom").setLevel(logging.DEBUG)
    else:
        warnings.simplefilter("ignore")
    if settings.device == "cpu":  # elsewhere, activations are not in main memory
        keep_freed()
    worker: Worker | None = None
    inbox: queue.SimpleQueue[Bundle | None] = queue.SimpleQueue()
    orphaned = threading.Event()
    sending = threading.Lock()

    def listen() -> None:
        try:
            while True:
                bundle: Bundle | str | None = connection.recv()  # type: ignore[assignment]
                if isinstance(bundle, str):
                    stops.append(bundle)
                    continue
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

    # Prompts of private images stand in no file but the manifest, and libraries quote prompts.
    forward(send, hide_texts=any(one.metadata.profile == "private" for one in settings.saves))
    threading.Thread(target=listen, name="listen", daemon=True).start()
    # diffusers' progress bars would take a lock between processes, which is reported as leaked when this one is killed.
    tqdm.set_lock(threading.RLock())

    try:
        worker = Worker(settings, send, lambda: bool(stops) or orphaned.is_set())
    except RunStopped as error:  # full disk, or a folder that another process made unwritable
        send(Ended(stop_kind=error.kind, stop_message=str(error)))
    else:
        _keep_pandas_out()
        worker.run(bundles())
    # Everything is sealed and said. Waiting threads and the exit handlers of libraries could only hang or abort now: a
    # thread that wakes while the interpreter is taken down is unwound through C++ that does not allow it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _keep_pandas_out() -> None:
    """Let pyarrow find no pandas, which it imports once it is given rows, to ask whether they are a data frame: that
    takes a quarter of a second of every run, and here they never are. Others may still import it.
    """
    sys.meta_path.insert(0, _NoPandas)
    try:
        import pyarrow as pa

        pa.array([])
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas(importlib.abc.MetaPathFinder):
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)

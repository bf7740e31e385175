"""A worker that cannot be started yet, because its server still imports, keeps nobody waiting."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from jobs.engines.local import LocalEngine
from jobs.engines.messages import Died, Ended, Message, WorkerSettings
from jobs.engines.processes import WorkerProcess, WorkerProcesses


class Importing(WorkerProcesses):
    """Starts workers once `imported` is set."""

    def __init__(self) -> None:
        super().__init__("forkserver")
        self.imported = threading.Event()
        self.started: list[WorkerProcess] = []

    def start(self) -> WorkerProcess:
        self.imported.wait(60)
        self.started.append(super().start())
        return self.started[-1]


def starting(tmp_path: Path) -> tuple[LocalEngine, Importing]:
    processes = Importing()
    engine = LocalEngine(WorkerSettings(str(tmp_path), "run", frozenset(), (), "cpu"), processes)
    before = time.monotonic()
    engine.start()
    assert engine.receive(timeout_s=0.01) is None and engine.running
    assert time.monotonic() - before < 5
    return engine, processes


def test_what_is_sent_meanwhile_arrives(tmp_path: Path) -> None:
    engine, processes = starting(tmp_path)
    engine.finish()
    processes.imported.set()
    message: Message | None = None
    while engine.running:
        message = engine.receive(timeout_s=0.1)
    assert isinstance(message, Ended) and message.stop_kind is None


def test_a_stop_does_not_wait_for_it(tmp_path: Path) -> None:
    engine, processes = starting(tmp_path)
    engine.stop()
    assert isinstance(engine.receive(timeout_s=0.01), Died) and not engine.running
    engine.kill()
    processes.imported.set()
    deadline = time.monotonic() + 60
    while not (processes.started and processes.started[0].process.exitcode is not None):
        assert time.monotonic() < deadline, "the late worker goes on"
        time.sleep(0.05)

"""Being asked to stop: everything finished is sealed, nothing loses an attempt, the same command goes on."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable

import psutil
import pytest
from families import a_few
from running import Batch, Run

LINES = ["a red house", "a blue boat"]
LONG = ("seeds={start: 0, count: 200}", "sampling.steps=200")
"""So that no machine is through before it is interrupted."""

WITHIN_S = 20.0
"""5 s are promised on an idle machine; tests share theirs."""


@pytest.mark.slow
def test_stopped_by_signals_and_resumed(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(["a red house in hills at day"], "seeds={start: 0, count: 40}", "batch_size=2", model="demo")
    batch.arguments.append("sampling.steps=20")
    signals: list[tuple[str, Callable[[Run], None]]] = [
        ("SIGINT", lambda run: run.signal(signal.SIGINT)),
        ("SIGTERM", lambda run: run.signal(signal.SIGTERM)),
        ("SIGINT", lambda run: run.signal_group(signal.SIGINT)),
    ]
    known: dict[str, dict[str, object]] = {}
    for name, send in signals:
        run = batch.start()
        batch.wait_for_images(run, len(known) + 2)
        asked = time.monotonic()
        send(run)
        ended = run.wait()
        seconds = time.monotonic() - asked
        print(f"{name}: stopped after {seconds:.1f} s")
        assert ended.code == 4 and seconds < WITHIN_S
        assert f"stopped by {name}" in ended.out and "the same command makes the rest" in ended.out
        assert "Traceback" not in ended.err
        assert batch.journals() == []
        done = batch.acknowledged()
        assert len(done) < 40 and known.keys() < done.keys()
        assert batch.summaries()[-1]["made"] == len(done) - len(known)
        known = done

    # The worker alone is asked to end: it seals, and another one goes on.
    run = batch.start("batch_size=8")
    run.until(lambda: "loaded" in run.err)
    child = run.child()
    assert child is not None
    with contextlib.suppress(psutil.NoSuchProcess):
        for _ in range(300):  # at whatever it is, also when it looks whether it has been asked
            child.terminate()
            time.sleep(0.001)
    last = run.wait()
    assert last.code == 0 and "the worker was lost" in last.err, last.err
    batch.assert_whole(40, since=known)
    assert {(row["status"], row["attempt"]) for row in batch.rows()} == {("done", 1)}


@pytest.mark.slow
def test_second_signal_ends_at_once(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(LINES, *LONG)
    run = batch.start()
    child = run.new_child()
    child.suspend()  # a worker that does not answer
    run.signal(signal.SIGINT)
    run.until(lambda: "press Ctrl-C again" in run.err)
    run.signal(signal.SIGINT)
    assert run.wait().code == -signal.SIGINT
    child.wait(10)


@pytest.mark.slow
@pytest.mark.parametrize("moment", a_few(range(6), [0, 2, 3]))
def test_interrupted_while_it_starts(make_batch: Callable[..., Batch], moment: int) -> None:
    """From the first tenth of a second on: while it imports, composes, plans, waits for its worker."""
    chance = random.Random(moment)
    batch = make_batch(LINES, *LONG)
    run = batch.start(fresh=True)
    # Before that Python is still finding its own modules, and nobody else is asked.
    run.until(lambda: psutil.Process(run.process.pid).cpu_times().user > 0.15)
    time.sleep(chance.uniform(0, 0.3) if moment < 2 else chance.uniform(0, 4))
    number = chance.choice([signal.SIGINT, signal.SIGTERM])
    chance.choice([run.signal, run.signal_group])(number)
    ended = run.wait()
    assert ended.code == 4, f"{number!r}: {ended}"
    assert "Traceback" not in ended.err and "stopped" in ended.err + ended.out
    assert batch.journals() == []
    left = [process for process in psutil.process_iter() if _group(process) == run.process.pid]
    psutil.wait_procs(left, 20)
    assert not [process for process in left if process.is_running()]


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


@pytest.mark.slow
def test_interrupted_before_anything_is_made(make_batch: Callable[..., Batch]) -> None:
    """Ctrl-C in a terminal reaches the worker too, even while Python is still starting in it."""
    batch = make_batch(LINES, *LONG)
    run = batch.start()
    child = run.new_child()
    run.until(lambda: child.cpu_times().user > 0.1)
    run.signal_group(signal.SIGINT)
    ended = run.wait()
    assert ended.code == 4 and "Traceback" not in ended.err, ended.err
    assert batch.journals() == [] and batch.rows() == []

"""What is seen while images are made: what is waited for, an estimate that means something, failures counted apart."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from small_plans import batch, plan_of

from jobs.engines.messages import Failed, Loaded
from jobs.running.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [0.0]
    monkeypatch.setattr("jobs.running.progress.time.monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_a_log_says_what_is_waited_for_until_an_estimate_means_something(pass_time: Callable[[float], None]) -> None:
    log = io.StringIO()
    progress = Progress(8, quiet=False, stream=log)

    def last_line() -> str:
        pass_time(10)
        progress.tick()
        return log.getvalue().splitlines()[-1]

    progress.at("importing libraries")
    assert last_line() == "0 of 8 images, importing libraries"
    progress.at("loading demo")
    assert last_line() == "0 of 8 images, loading demo"
    progress.loaded(Loaded("demo", 10))
    progress.at("encoding")
    assert last_line() == "0 of 8 images, encoding"
    progress.at("denoising")
    assert last_line() == "0 of 8 images, denoising"
    pass_time(20)
    progress.at("denoising", 4)  # nothing is durable yet, but half of it is denoised: 4 in 40 s
    assert log.getvalue().splitlines()[-1] == "0 of 8 images, 0.10 images/s, 80 s left, denoising"
    progress.at("decoding", 4)
    for _ in range(8):
        progress.made()
    assert log.getvalue().splitlines()[-1] == "8 of 8 images, 0.20 images/s"
    told = log.getvalue()
    last_line()
    assert log.getvalue() == told, "nothing more is to come"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_failures_are_no_progress(stream: type[io.StringIO], pass_time: Callable[[float], None]) -> None:
    log = stream()
    progress = Progress(3, quiet=False, stream=log)
    job = next(iter(plan_of(batch("a")).jobs()))
    progress.loaded(Loaded("demo", 1))
    pass_time(2)
    progress.failed(Failed(job.id, "bad_pixels", "black"), job)
    progress.skipped()
    progress.made()
    last = log.getvalue().replace("\r", "\n").splitlines()[-1].rstrip("]")
    assert "2/3" in last or last.startswith("2 of 3 images")
    assert last.endswith("0.50 images/s, 1 failed")


def test_a_bar_ticks_while_nothing_happens(pass_time: Callable[[float], None]) -> None:
    terminal = Terminal()
    progress = Progress(80, quiet=False, stream=terminal)
    progress.at("importing libraries")
    drawn = terminal.getvalue().count("0/80")
    for _ in range(4):
        pass_time(0.5)
        progress.tick()
    assert terminal.getvalue().count("0/80") == drawn + 4
    assert "importing libraries" in terminal.getvalue().rpartition("\r")[2]

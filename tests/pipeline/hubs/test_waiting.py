"""Waits that last are told, in one line; short ones are not."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hub_server import HubServer, Reply, instead, json_reply
from hub_weights import Fetching, weights

from pipeline.hubs import waiting
from pipeline.hubs.hub_settings import HubSettings
from pipeline.hubs.limits import Limits
from pipeline.hubs.query import ask
from pipeline.hubs.retries import Patience
from pipeline.hubs.transport import Transport
from pipeline.storage.locks import lock

WEIGHTS = weights()


class Told(list[str]):
    """The lines that were said; `first` is set with the first of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = threading.Event()

    def __call__(self, line: str) -> None:
        self.append(line)
        self.first.set()


@contextmanager
def held(path: Path) -> Iterator[Callable[[], None]]:
    """A file that another one holds, until it is let go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    lock(fd)
    closed = False

    def let_go() -> None:
        nonlocal closed
        if not closed:
            os.close(fd)
        closed = True

    yield let_go
    let_go()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TOLD_S", 0.0)


@pytest.mark.usefixtures("impatient")
def test_who_waits_for_another_process_says_so_and_gets_its_turn(tmp_path: Path) -> None:
    told, done = Told(), threading.Event()
    limits = Limits(tmp_path, say=told)

    def download() -> None:
        with limits.turn("civitai.file"):
            done.set()

    with held(tmp_path / "civitai.file.turn") as let_go:
        thread = threading.Thread(target=download)
        thread.start()
        assert told.first.wait(60) and not done.is_set()
        let_go()
        thread.join()
    assert done.is_set()
    assert told == ["CivitAI: one file at a time; waiting for another process to have fetched its own"]


@pytest.mark.usefixtures("impatient")
def test_a_file_that_another_process_fetches_is_waited_for_aloud(tmp_path: Path) -> None:
    told = Told()
    with HubServer() as server:
        fetching = Fetching(server, tmp_path)
        fetching.transport.say = told
        source = fetching.offer(WEIGHTS)
        with held(fetching.partial(WEIGHTS)) as let_go:
            thread = threading.Thread(target=fetching.fetch, args=(WEIGHTS, source))
            thread.start()
            assert told.first.wait(60) and not server.requests
            let_go()
            thread.join()
    assert told == ["a: another process is fetching it; waiting for that"]
    assert fetching.target(WEIGHTS).read_bytes() == WEIGHTS


def test_nobody_is_told_of_a_lock_that_is_free(tmp_path: Path) -> None:
    told = Told()
    with Limits(tmp_path, say=told).turn("civitai.file"):
        pass
    assert told == []


def test_the_buckets_tell_of_waits_above_two_seconds(tmp_path: Path) -> None:
    told, waits = Told(), list[float]()
    limits = Limits(tmp_path, clock=lambda: 1_000.0, sleep=waits.append, say=told)  # time stands still
    for _ in range(8):
        limits.wait("civitai.api")
    assert waits == [1.0, 2.0, 3.0]
    assert told == ["CivitAI: waiting 3 s, so as not to ask it too often"]


def test_a_hub_that_asks_for_patience_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.hubs import query

    told, waits = Told(), list[float]()
    monkeypatch.setattr(query, "_PATIENCE", Patience(attempts=4, crowded_s=2.0, longest_s=10.0, sleep=waits.append))
    with HubServer() as server:
        server.route("GET", "/api/x", lambda request: json_reply({}))
        server.fault("/api/x", instead(json_reply({}, 429).with_headers(Retry_After="7")), times=1)
        server.fault("/api/x", instead(json_reply({}, 503).with_headers(Retry_After="5")), times=1)
        transport = Transport(HubSettings(huggingface_url=server.url), say=told, limits=Limits(tmp_path))
        ask(transport, "huggingface.api", f"{server.url}/api/x", "x")
    assert waits == [7.0, 5.0]
    assert told == [
        "Hugging Face asks for fewer requests; trying again in 7 s",
        "Hugging Face is out of order (status 503); trying again in 5 s",
    ]


def test_a_download_says_why_it_waits(tmp_path: Path) -> None:
    told = Told()
    with HubServer() as server:
        fetching = Fetching(server, tmp_path)
        fetching.transport.say = told
        source = fetching.offer(WEIGHTS)
        server.fault("/hf/a", instead(Reply(429)), times=1)
        fetching.fetch(WEIGHTS, source)
    assert fetching.waits == [30.0]
    assert told == ["a: Hugging Face asks for fewer requests; trying again in 30 s"]

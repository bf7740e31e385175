"""What hubs said is kept in a file that can be lost, locked, damaged or forbidden, and nothing stops for it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from pipeline.hubs import answer_cache
from pipeline.hubs.answer_cache import cache_file, keep, keep_place, kept, kept_places
from pipeline.hubs.query import answered
from pipeline.hubs.results import Ok, Outcome, Problem
from pipeline.registry.records import now


def test_what_is_kept_comes_back_with_its_time() -> None:
    assert kept("a") is None and not cache_file().exists()
    before = now()
    keep("a", {"x": [1, None, "ü"]})
    keep("b", None)
    found = kept("a")
    assert found and found.value == {"x": [1, None, "ü"]} and before <= found.at <= now() and found.age_s < 60
    assert (absent := kept("b")) and absent.value is None
    keep("a", 2)
    assert (again := kept("a")) and again.value == 2


def test_places_are_kept_by_content() -> None:
    keep_place("ab", "civitai", "https://civitai.com/1")
    keep_place("ab", "huggingface", "https://huggingface.co/1")
    keep_place("ab", "huggingface", "https://huggingface.co/1")
    assert kept_places("ab") == [("huggingface", "https://huggingface.co/1"), ("civitai", "https://civitai.com/1")]
    assert kept_places("cd") == []


def test_the_oldest_answers_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_cache, "MOST_ANSWERS", 3)
    for number in range(5):
        keep(str(number), number)
    assert [number for number in range(5) if kept(str(number))] == [2, 3, 4]


def test_what_is_too_long_is_not_kept() -> None:
    keep("long", "x" * answer_cache.MOST_BYTES)
    assert kept("long") is None


def test_a_damaged_file_is_replaced() -> None:
    cache_file().parent.mkdir(parents=True)
    cache_file().write_bytes(b"no database at all, and long enough to be seen as none" * 20)
    assert kept("a") is None
    keep("a", 1)
    assert (found := kept("a")) and found.value == 1


def test_a_row_that_somebody_has_spoilt_is_as_good_as_not_there() -> None:
    keep("a", 1)
    with closing(sqlite3.connect(cache_file())) as connection, connection:
        connection.execute("UPDATE answers SET value = '{', at = 'yesterday'")
    assert kept("a") is None


def test_a_locked_file_stops_nothing() -> None:
    keep("a", 1)
    with closing(sqlite3.connect(cache_file(), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        keep("b", 2)
        assert kept("a") is None
    assert kept("b") is None and kept("a") is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_stops_nothing() -> None:
    cache_file().parent.mkdir(parents=True)
    cache_file().parent.chmod(0o500)
    try:
        keep("a", 1)
        assert kept("a") is None
    finally:
        cache_file().parent.chmod(0o700)


def test_a_folder_that_is_a_file_stops_nothing() -> None:
    cache_file().parent.parent.mkdir(parents=True, exist_ok=True)
    cache_file().parent.write_text("in the way")
    keep("a", 1)
    keep_place("ab", "civitai", "x")
    assert kept("a") is None and kept_places("ab") == []


def asked(outcome: Outcome[int], log: list[int], fresh_s: float | None = 60.0) -> Outcome[int]:
    def fetch() -> Outcome[int]:
        log.append(1)
        return outcome

    return answered("here", "what", int, fetch, fresh_s)


def test_a_fresh_answer_is_not_asked_for_again(grow_old: Callable[[], None]) -> None:
    log: list[int] = []
    assert asked(Ok(1, now()), log) and asked(Ok(2, now()), log)
    assert len(log) == 1
    assert isinstance(again := asked(Ok(2, now()), log, fresh_s=0.0), Ok) and again.value == 2
    grow_old()
    assert isinstance(kept_one := asked(Ok(3, now()), log, fresh_s=None), Ok) and kept_one.value == 2
    assert isinstance(new := asked(Ok(3, now()), log), Ok) and new.value == 3
    assert len(log) == 3


@pytest.mark.parametrize(
    "problem", [Problem("offline", "what", "no network"), Problem("rate_limited", "what", retry_after_s=9.0)]
)
def test_a_hub_that_cannot_be_asked_is_answered_for(problem: Problem, grow_old: Callable[[], None]) -> None:
    assert asked(problem, []) == problem
    asked(Ok(1, now()), [])
    grow_old()
    said = asked(problem, [])
    assert isinstance(said, Ok) and said.stale and said.value == 1


def test_that_there_is_none_is_remembered_for_a_while(grow_old: Callable[[], None]) -> None:
    log: list[int] = []
    none = Problem("not_found", "what")
    assert asked(none, log) == asked(none, log) == none
    assert len(log) == 1
    grow_old()
    asked(Ok(1, now()), log)
    assert len(log) == 2
    grow_old()
    assert asked(none, log).kind == "not_found"
    assert isinstance(asked(Problem("offline", "what", "x"), log), Ok), "what is gone from the hub can still be shown"


def test_that_there_is_none_for_now_is_not_remembered() -> None:
    log: list[int] = []
    none = Problem("not_found", "what", lasting=False)
    asked(none, log)
    asked(none, log)
    assert len(log) == 2
